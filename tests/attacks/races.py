"""The same token twice or twenty times at once, two remedies at once, and what one process revokes at the other."""

import asyncio
from collections import Counter
from typing import Any

import httpx

from tests.attacks.document import new_password
from tests.attacks.report import Report
from tests.attacks.target import Account, Target, Unavailable

AT_ONCE = 20


async def attack(target: Target, report: Report) -> None:
    """Run every race; what needs a mailbox or an administrator is left out where there is none."""
    races = (_refresh_reuse, _refresh_at_once, _reset_at_once, _verify_at_once, _two_remedies, _logout_while_refreshing)
    for race in (*races, _register_at_once, _revoked_elsewhere):
        for _ in range(5 if target.full else 1):
            target.visit()
            try:
                await race(target, report)
            except Unavailable as missing:
                report.judge(race.__name__.strip("_").replace("_", " "), None, missing)


async def _refresh(target: Target, token: str, process: int = 0) -> httpx.Response:
    return await target.call("POST", "/auth/refresh-token", json={"refresh_token": token}, process=process)


async def _works(target: Target, access: str, process: int = 0) -> bool:
    return (await target.call("GET", "/profile", token=access, process=process)).status_code == 200


async def _logs_in(target: Target, account: Account, password: str) -> bool:
    body = {"username": account.email, "password": password}
    return (await target.call("POST", "/auth/login", data=body)).status_code == 200


async def _refresh_reuse(target: Target, report: Report) -> None:
    """RFC 9700 section 4.14.2: a token that was exchanged and whose successor was used ends the session."""
    account = await target.fresh()
    second = (await _refresh(target, account.refresh)).json()
    third = (await _refresh(target, second["refresh_token"])).json()
    report.judge("an honest chain of refreshes works", "access_token" in third, list(third))
    reused = await _refresh(target, account.refresh, process=1)
    report.judge("a refresh token used again", reused.status_code in (400, 401), reused.status_code)
    if "access_token" in third:
        report.judge("access token after a reuse", not await _works(target, third["access_token"]), "still works")
        after = await _refresh(target, third["refresh_token"], process=1)
        report.judge("newest refresh token after a reuse", not after.is_success, after.status_code)


async def _refresh_at_once(target: Target, report: Report) -> None:
    """However often it is sent at once, a refresh token has one successor."""
    account = await target.fresh()
    answers = await asyncio.gather(*(_refresh(target, account.refresh, process=number) for number in range(AT_ONCE)))
    successors = {one.json()["refresh_token"] for one in answers if one.is_success}
    report.judge(f"{AT_ONCE} refreshes at once", len(successors) <= 1, f"{len(successors)} different successors")


async def _one_winner(target: Target, report: Report, name: str, path: str, bodies: list[dict[str, Any]]) -> int:
    answers = await asyncio.gather(
        *(target.call("POST", path, json=body, process=number) for number, body in enumerate(bodies))
    )
    won = [number for number, one in enumerate(answers) if one.is_success]
    statuses = dict(Counter(one.status_code for one in answers))
    report.judge(f"{name} used {len(bodies)} times at once", len(won) == 1, f"{len(won)} accepted, {statuses}")
    return won[0] if won else 0


async def _reset_at_once(target: Target, report: Report) -> None:
    """A mailed link for a new password is used once, and the password is that of the winner."""
    account = await target.fresh()
    token = await target.reset_token(account)
    passwords = [new_password() for _ in range(AT_ONCE)]
    bodies = [{"token": token, "new_password": password} for password in passwords]
    won = await _one_winner(target, report, "a reset link", "/auth/reset-password", bodies)
    report.judge("the winner's password is in force", await _logs_in(target, account, passwords[won]))
    report.judge("a loser's password", not await _logs_in(target, account, passwords[won - 1]), "logs in")
    report.judge("session before the reset", not await _works(target, account.access, process=1), "still works")
    account.password = passwords[won]


async def _verify_at_once(target: Target, report: Report) -> None:
    """A link that verifies an address is used once."""
    account = await target.fresh(verified=False, logged_in=False)
    token = await target.verification_token(account)
    await _one_winner(target, report, "a verification link", "/auth/verify-email", [{"token": token}] * AT_ONCE)


async def _two_remedies(target: Target, report: Report) -> None:
    """A reset and a change of password at once: one password is in force afterwards, and no session of the loser."""
    account = await target.fresh()
    token, (reset, changed) = await target.reset_token(account), (new_password(), new_password())
    change = {"current_password": account.password, "new_password": changed}
    answers = await asyncio.gather(
        target.call("POST", "/auth/reset-password", json={"token": token, "new_password": reset}),
        target.call("POST", "/profile/password", json=change, token=account.access, process=1),
    )
    statuses = [one.status_code for one in answers]
    working = [await _logs_in(target, account, one) for one in (reset, changed, account.password)]
    report.judge(
        "passwords in force after two remedies at once", sum(working) == 1 and not working[2], (statuses, working)
    )
    if working[0]:
        report.judge("session of the overtaken change", not await _works(target, account.access), "still works")
    account.password = reset if working[0] else changed


async def _logout_while_refreshing(target: Target, report: Report) -> None:
    """After a logout no token of the session works, whatever was under way."""
    account = await target.fresh()
    rest = [_refresh(target, account.refresh, process=number) for number in range(5)]
    ended, *answers = await asyncio.gather(target.call("POST", "/auth/logout", token=account.access, process=1), *rest)
    report.judge("logging out while refreshing", ended.status_code == 204 or None, ended.status_code)
    for answer in answers:
        if answer.is_success:
            given = answer.json()
            alive = await _works(target, given["access_token"])
            report.judge("access token from a refresh during the logout", not alive, "still works")
            after = await _refresh(target, given["refresh_token"])
            report.judge("refresh token from a refresh during the logout", not after.is_success, after.status_code)
    report.judge("access token after the logout", not await _works(target, account.access), "still works")


async def _register_at_once(target: Target, report: Report) -> None:
    """One address and one name make one account, in whatever spelling."""
    if target.admin is None:
        raise Unavailable("needs an administrator")
    account, token = Account(*(await _unused()), new_password()), await target.admin_token()
    bodies = [
        {
            "email": account.email.upper() if number % 2 else account.email,
            "username": account.username + "x" * (number % 2),
        }
        for number in range(8)
    ]
    answers = await asyncio.gather(
        *(
            target.call("POST", "/users", json=body | {"password": account.password}, token=token, process=number)
            for number, body in enumerate(bodies)
        )
    )
    made = [one.json()["data"]["id"] for one in answers if one.status_code == 201]
    report.judge("8 accounts of one address made at once", len(made) == 1, f"{len(made)} were made")
    target.made.append(account)


async def _unused() -> tuple[str, str]:
    from tests.attacks.document import new_address, new_name

    return new_address(), new_name()


async def _revoked_elsewhere(target: Target, report: Report) -> None:
    """What one process revokes the other refuses at the next request."""
    where = "at the other process" if len(target.urls) > 1 else "at the next request"

    async def refused(what: str, account: Account) -> None:
        for process in range(len(target.urls)):
            answer = await target.call("GET", "/profile", token=account.access, process=process)
            report.judge(f"access token after {what}, {where}", answer.status_code in (401, 403), answer.status_code)
            after = await _refresh(target, account.refresh, process=process)
            report.judge(f"refresh token after {what}, {where}", not after.is_success, after.status_code)

    one = await target.fresh()
    report.judge("a new session works everywhere", await _works(target, one.access, process=1))
    await target.call("POST", "/auth/logout", token=one.access)
    await refused("a logout", one)
    one = await target.fresh()
    other = await target.again(one, process=1)
    await target.call("POST", "/auth/logout-all", token=other.access, process=1)
    await refused("logging out everywhere", one)
    one = await target.fresh()
    other = await target.again(one)
    password = new_password()
    body = {"current_password": one.password, "new_password": password}
    await target.call("POST", "/profile/password", json=body, token=other.access, process=1)
    await refused("a change of password elsewhere", one)
    one.password = password
    if target.admin:
        await _administered(target, report, refused)


async def _administered(target: Target, report: Report, refused: Any) -> None:
    token = await target.admin_token()
    one = await target.fresh()
    await target.call("PATCH", f"/users/{one.id}", json={"status_id": 2}, token=token)
    for process in range(len(target.urls)):
        body = {"username": one.username + "x"}
        answer = await target.call("PATCH", "/profile", json=body, token=one.access, process=process)
        report.judge("a change by a disabled account", answer.status_code in (401, 403), answer.status_code)
        report.judge("login of a disabled account", not await _logs_in(target, one, one.password), "lets in")
    one = await target.fresh()
    await target.call("DELETE", f"/users/{one.id}", token=token, process=1)
    await refused("the account was deleted", one)
