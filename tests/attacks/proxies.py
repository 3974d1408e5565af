"""Headers that claim another address: they must reset no limit and reach no session."""

from contextlib import AsyncExitStack

from tests.attacks.document import new_address, new_password
from tests.attacks.report import Report
from tests.attacks.target import Target

TRIES = 60
_CLAIMS = ("198.51.100.7", "127.0.0.1", "::1", "10.0.0.1", "unknown", "198.51.100.7, 127.0.0.1")
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


def claims(number: int) -> list[tuple[str, str]]:
    """Every header with one value."""
    value = _CLAIMS[number % len(_CLAIMS)]
    return [(name, f'for="{value}";by=198.51.100.8' if name == "Forwarded" else value) for name in _HEADERS]


async def _limit(target: Target, report: Report) -> None:
    """As many logins of accounts that do not exist as the limit of this address allows, then one for each header."""
    path = target.path("/auth/login")
    address = target.visit()

    async def tried(**given: object) -> int:
        body = {"username": new_address(), "password": new_password()}
        answer = await target.once("POST", path, data=body, address=address, **given)  # type: ignore[arg-type]
        return answer.status_code

    for number in range(TRIES):
        headers = dict(claims(number))
        if await tried(headers=headers) == 429:
            break
    else:
        report.judge("logins from one client that claims to be many", False, f"no limit within {TRIES}")
        return
    report.judge("logins from one client that claims to be many", True)
    for number in range(len(_CLAIMS)):
        for name, value in claims(number):
            status = await tried(headers={name: value})
            report.judge(f"limit with {name}: {value}", status == 429, f"answered {status}")
            status = await tried(headers=[(name.encode(), value.encode()), (name.encode(), b"192.0.2.200")])
            report.judge(f"limit with {name} twice", status == 429, f"answered {status}")


async def _sessions(target: Target, report: Report) -> None:
    """The address of a session is that of the connection."""
    account = await target.fresh()
    for name, value in claims(0):
        target.visit()
        body = {"username": account.email, "password": account.password}
        answer = await target.call(
            "POST", "/auth/login", data=body, headers={name: value, "X-Forwarded-Proto": "https"}
        )
        if answer.status_code != 200:
            report.judge(f"session with {name}", None, f"login answered {answer.status_code}")
            continue
        sessions = await target.call("GET", "/auth/sessions", token=answer.json()["access_token"])
        if sessions.status_code != 200:
            report.judge(f"session with {name}", None, f"sessions answered {sessions.status_code}")
            continue
        report.judge(f"session with {name}", "198.51.100" not in sessions.text, "has the claimed address")
