"""Headers that claim another address: they must reset no limit and reach no session."""

import itertools
from contextlib import AsyncExitStack

from tests.attacks.document import new_address, new_password
from tests.attacks.report import Report
from tests.attacks.target import Target

TRIES = 60
_SPECIAL = ("127.0.0.1", "::1", "10.0.0.1", "unknown", "", ",", "_hidden", "[::1]:80", "%00")
_HEADERS = (
    *("X-Forwarded-For", "X-Real-IP", "X-Client-IP", "X-Cluster-Client-IP", "CF-Connecting-IP", "True-Client-IP"),
    *("X-Originating-IP", "X-Remote-IP", "X-Remote-Addr", "Fastly-Client-IP", "X-Azure-ClientIP", "Client-IP", "Via"),
    *("Forwarded", "X-Forwarded", "Forwarded-For", "X-ProxyUser-Ip"),
)


async def attack(target: Target, report: Report) -> None:
    """Use a limit up, then claim to be somebody else; log in so."""
    async with AsyncExitStack() as stack:
        limited = await stack.enter_async_context(target.limits()) if target.limits else target
        limited.begin(report)
        await _limit(limited, report)
    target.begin(report)
    await _sessions(target, report)


def claim(name: str, number: int) -> str:
    """A value of the header that no other number has."""
    address = (
        f"198.51.{number >> 8 & 255}.{number & 255}",
        f"2001:db8:{number:x}::1",
        f"198.51.{number >> 8 & 255}.{number & 255}, 127.0.0.1",
        f"127.0.0.1, 198.51.{number >> 8 & 255}.{number & 255}",
    )[number % 4]
    return f'for="{address}";by=203.0.113.8;proto=https' if name == "Forwarded" else address


async def _limit(target: Target, report: Report) -> None:
    """As many logins of accounts that do not exist as the limit of this address allows, then more for each header."""
    path, address, numbers = target.path("/auth/login"), target.visit(), itertools.count(1)

    async def tried(headers: list[tuple[str, str]]) -> int:
        body = {"username": new_address(), "password": new_password()}
        fields = [(name.encode(), value.encode()) for name, value in headers]
        return (await target.once("POST", path, data=body, address=address, headers=fields)).status_code

    for _ in range(TRIES):
        number = next(numbers)
        if await tried([(name, claim(name, number)) for name in _HEADERS]) == 429:
            break
    else:
        report.judge("logins from one client that claims to be many", False, f"no limit within {TRIES}")
        return
    report.judge("logins from one client that claims to be many", True)
    for name in _HEADERS:
        for value in (*(claim(name, next(numbers)) for _ in range(6)), *_SPECIAL):
            status = await tried([(name, value)])
            report.judge(f"limit with {name}: {value}", status == 429, f"answered {status}")
        twice = [(name, claim(name, next(numbers))) for _ in range(2)]
        status = await tried(twice)
        report.judge(f"limit with {name} twice", status == 429, f"answered {status}")


async def _sessions(target: Target, report: Report) -> None:
    """The address of a session is that of the connection."""
    account = await target.fresh()
    for name in _HEADERS:
        target.visit()
        body = {"username": account.email, "password": account.password}
        value = claim(name, 4)
        answer = await target.call("POST", "/auth/login", data=body, headers={name: value})
        if answer.status_code != 200:
            report.judge(f"session with {name}", None, f"login answered {answer.status_code}")
            continue
        sessions = await target.call("GET", "/auth/sessions", token=answer.json()["access_token"])
        if sessions.status_code != 200:
            report.judge(f"session with {name}", None, f"sessions answered {sessions.status_code}")
            continue
        rows = sessions.json()["data"]
        shown = str([one for one in rows if one.get("is_current")] or rows)
        report.judge(f"session with {name}", "198.51.0.4" not in shown, "has the claimed address")
