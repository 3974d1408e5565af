"""Guesses of one account's password from many addresses, and mails to one mailbox: counted for what is attacked."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from tests.attacks.document import new_password
from tests.attacks.report import Report
from tests.attacks.target import Account, Target, Unavailable
from tests.attacks.twins import address_twins, name_twins

GUESSES = 40
MOST = 10
"""Checks of one password that an attacker gets, whatever they call the account."""
MAILS = 3
"""Links of a kind that one mailbox gets within an hour."""


async def attack(target: Target, report: Report) -> None:
    """Every request comes from another address where that can be, else the limits of one address are seen first."""
    async with AsyncExitStack() as stack:
        limited = await stack.enter_async_context(target.limits()) if target.limits else target
        limited.begin(report)
        await _logins(limited, report)
        await _confirmations(limited, report)
        await _mails(limited, report)
    target.begin(report)


async def _login(target: Target, name: str, password: str, **more: str) -> int:
    target.visit()
    body = {"username": name, "password": password, **more}
    return (await target.once("POST", target.path("/auth/login"), json=body)).status_code


async def _logins(target: Target, report: Report) -> None:
    """At most ten checks, by name and address together; then no spelling and no foreign proof gets another."""
    account, thief = await target.fresh(), await target.fresh()
    checked = 0
    for name in (account.email, account.username):
        for _ in range(GUESSES // 2):
            checked += await _login(target, name, new_password()) == 401
    report.judge(f"{GUESSES} guesses at one account", checked <= MOST, f"{checked} were checked")
    proofs = {"no proof": {}, **_proofs(account, thief)}
    for how, proof in proofs.items():
        for name in (account.email, account.username):
            status = await _login(target, name, account.password, **proof)
            report.judge(f"the right password with {how}, after the guesses", status == 429, f"answered {status}")
    for how, twin in (*address_twins(account.email), *name_twins(account.username)):
        status = await _login(target, twin, account.password)
        report.judge(f"the right password for {how}, after the guesses", status != 200, f"answered {status}")
    token = account.login.get("device_token")
    if token:
        status = await _login(target, account.email, account.password, device_token=token)
        # From one address its own limit answers first.
        let_in = None if status == 429 and not target.own_addresses else status == 200
        report.judge("the owner's device is let in all the same", let_in, f"answered {status}")
        tried = [await _login(target, account.email, new_password(), device_token=token) for _ in range(GUESSES // 2)]
        report.judge(
            f"{GUESSES // 2} guesses from a known device", tried.count(401) <= MOST, f"{tried.count(401)} checked"
        )


def _proofs(account: Account, thief: Account) -> dict[str, dict[str, str]]:
    """Device tokens that are not the owner's."""
    own, others = str(account.login.get("device_token", "")), str(thief.login.get("device_token", ""))
    if not own or not others:
        return {}
    made = {"another's device": others, "a made up device": "x" * len(own), "a cut device token": own[:-1]}
    made |= {
        "half and half": own[: len(own) // 2] + others[len(others) // 2 :],
        "a device token in capitals": own.swapcase(),
    }
    if own.count("."):
        head, _, tail = own.rpartition(".")
        made |= {
            "another's signature": f"{head}.{others.rpartition('.')[2]}",
            "another's claim": f"{others.rpartition('.')[0]}.{tail}",
        }
    return {how: {"device_token": token} for how, token in made.items()}


async def _confirmations(target: Target, report: Report) -> None:
    """A stolen access token is no way to guess the password, from many addresses and by all routes at once."""
    account = await target.fresh()
    routes: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("POST", "/profile/password", {"new_password": new_password()}),
        ("DELETE", "/profile", {}),
        ("PATCH", "/profile", {"email": f"x{account.email}"}),
    )
    statuses = []
    for number in range(GUESSES):
        target.visit()
        method, path, body = routes[number % len(routes)]
        guess = body | {"current_password": new_password()}
        statuses.append((await target.once(method, target.path(path), json=guess, token=account.access)).status_code)
    judged = [one for one in statuses if one != 429]
    report.judge(f"{GUESSES} guesses with a stolen token", len(judged) <= MOST, f"{len(judged)} were checked")
    report.judge("none of them is right", not any(one < 300 for one in judged), judged)


async def _mails(target: Target, report: Report) -> None:
    """No mailbox is flooded, and the answers do not say that it would be."""
    account = await target.fresh()
    waiting = await target.fresh(verified=False, logged_in=False)
    for path, address in (("/auth/restore-password", account.email), ("/auth/resend-verification", waiting.email)):
        statuses = set()
        for number in range(GUESSES // 2):
            target.visit()
            spelt = address.upper() if number % 2 else address
            statuses.add((await target.once("POST", target.path(path), json={"email": spelt})).status_code)
        statuses -= set() if target.own_addresses else {429}
        report.judge(f"answers to {GUESSES // 2} requests for a link by {path}", len(statuses) <= 1, statuses)
        if target.inside is None:
            report.judge(f"mails by {path}", None, Unavailable("needs the mailbox"))
            continue
        await target.inside.settle()
        await asyncio.sleep(0)
        sent = [
            mail for mail in target.inside.mails() if mail["Delivered-To"] == address and "#token=" in mail.as_string()
        ]
        # Who was just registered has had one already.
        report.judge(f"mails by {path} to one mailbox", len(sent) <= MAILS + 1, f"{len(sent)} were sent")
