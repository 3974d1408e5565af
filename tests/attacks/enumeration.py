"""Whether answers, mails or times tell which accounts exist."""

import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.attacks.document import new_address, new_name, new_password
from tests.attacks.report import Report
from tests.attacks.target import Account, Target, Unavailable

_VARYING = {
    "date",
    "x-request-id",
    "x-conversation-id",
    "x-process-time",
    "ratelimit",
    "set-cookie",
    "age",
    "server-timing",
}
_SAMPLES = 25
_TOLERANCE = (1.5, 0.005)
"""Medians that differ by half, and by 5 ms, tell a client whether an account exists."""


async def attack(target: Target, report: Report) -> None:
    """Ask the same of an account that exists and of one that does not."""
    account = await target.member()
    await _login(target, report, account)
    await _links(target, report, account)
    await _registration(target, report, account)
    await _tokens(target, report)
    if target.full:
        await _times(target, report, account)


def shape(answer: httpx.Response, *known: str) -> dict[str, Any]:
    """What may not differ: the status, the headers and the body, without what differs every time."""
    text = answer.text
    for number, value in enumerate(known):
        text = text.replace(value, f"<{number}>") if value else text
    try:
        body = json.loads(text)
    except ValueError:
        body = text
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name not in ("request_id", "timestamp")}
    headers = {name: value for name, value in answer.headers.items() if name not in _VARYING}
    return {"status": answer.status_code, "headers": headers, "body": body}


def _compare(report: Report, case: str, existing: dict[str, Any], unknown: dict[str, Any]) -> None:
    if 429 in (existing["status"], unknown["status"]):
        report.judge(case, None, "rate limited")
        return
    differing = [name for name in existing if existing[name] != unknown[name]]
    told = {name: (existing[name], unknown[name]) for name in differing}
    report.judge(case, not differing, f"differs in {told}"[:600])


async def _login(target: Target, report: Report, account: Account) -> None:
    wrong = new_password()
    for kind, known, unknown in (("address", account.email, new_address()), ("name", account.username, new_name())):
        for how in ("data", "json"):
            answers = []
            for name in (known, unknown):
                arguments: dict[str, Any] = {how: {"username": name, "password": wrong}}
                answer = await target.call("POST", "/auth/login", **arguments)
                answers.append(shape(answer, name))
            _compare(report, f"login by {kind} as {how}", *answers)
    if target.admin:
        disabled = await target.fresh(logged_in=False)
        body = {"status_id": 2}
        await target.call("PATCH", f"/users/{disabled.id}", json=body, token=await target.admin_token())
        answers = []
        for name in (disabled.email, new_address()):
            answer = await target.call("POST", "/auth/login", data={"username": name, "password": wrong})
            answers.append(shape(answer, name))
        _compare(report, "login of a disabled account with a wrong password", *answers)


async def _links(target: Target, report: Report, account: Account) -> None:
    """The answer is the same, and nobody but the owner of an account gets a mail."""
    unknown = new_address()
    for path in ("/auth/restore-password", "/auth/resend-verification"):
        answers = []
        for address in (account.email, unknown):
            answers.append(shape(await target.call("POST", path, json={"email": address}), address))
        _compare(report, path, *answers)
    if target.inside:
        await target.inside.settle()
        mailed = [mail for mail in target.inside.mails() if mail["Delivered-To"] == unknown]
        report.judge("mails to an address without an account", not mailed, [mail["Subject"] for mail in mailed])


async def _registration(target: Target, report: Report, account: Account) -> None:
    def body(**given: str) -> dict[str, str]:
        return {"email": new_address(), "username": new_name(), "password": new_password(), **given}

    bodies = {"free": body(), "taken address": body(email=account.email), "taken name": body(username=account.username)}
    answers = {}
    for kind, given in bodies.items():
        answer = await target.call("POST", "/auth/register", json=given)
        answers[kind] = shape(answer, given["email"], given["username"])
    if answers["free"]["status"] in (201, 403, 404):
        report.judge("registration", None, f"answers {answers['free']['status']}: addresses need no verification here")
        return
    for kind in ("taken address", "taken name"):
        _compare(report, f"registration with a {kind}", answers[kind], answers["free"])


async def _tokens(target: Target, report: Report) -> None:
    """A used token answers as one that never was."""
    account = await target.fresh()
    try:
        token = await target.reset_token(account)
    except Unavailable as missing:
        report.judge("used tokens", None, missing)
        return
    answers = []
    account.password = new_password()
    for given in (token, token, "x" * len(token)):
        body = {"token": given, "new_password": account.password}
        answers.append(shape(await target.call("POST", "/auth/reset-password", json=body)))
    _compare(report, "a used reset token", answers[1], answers[2])


async def _times(target: Target, report: Report, account: Account) -> None:
    """Compare medians. What differs is measured again: a busy machine differs now and then, a leak each time."""
    wrong = new_password()
    known = [(await _someone(target, account)).email for _ in range(_SAMPLES)]
    kinds: dict[str, Callable[[str], Awaitable[httpx.Response]]] = {
        "login": lambda name: target.call("POST", "/auth/login", data={"username": name, "password": wrong}, process=0),
        "restore": lambda name: target.call("POST", "/auth/restore-password", json={"email": name}, process=0),
        "resend": lambda name: target.call("POST", "/auth/resend-verification", json={"email": name}, process=0),
        "register": lambda name: target.call(
            "POST",
            "/auth/register",
            json={"email": name, "username": new_name(), "password": new_password()},
            process=0,
        ),
    }
    for kind, ask in kinds.items():
        found: list[tuple[float, float]] = []
        while len(found) < 3 and (medians := await _medians(target, ask, known)):
            found.append(medians)
            if max(medians) <= _TOLERANCE[0] * min(medians) or max(medians) - min(medians) <= _TOLERANCE[1]:
                report.judge(f"time of {kind}", True)
                break
        else:
            told = ", ".join(
                f"{one * 1000:.1f} ms for an account and {other * 1000:.1f} without" for one, other in found
            )
            report.judge(f"time of {kind}", False if len(found) == 3 else None, told or "rate limited")


async def _medians(
    target: Target, ask: Callable[[str], Awaitable[httpx.Response]], known: list[str]
) -> tuple[float, float] | None:
    """Seconds for accounts that exist and for those that do not, in an order that is chance; None where limited."""
    order = [(True, name) for name in known] + [(False, new_address()) for _ in known]
    random.shuffle(order)
    times: dict[bool, list[float]] = {True: [], False: []}
    for exists, name in order:
        target.visit()
        began = time.perf_counter()
        answer = await ask(name)
        times[exists].append(time.perf_counter() - began)
        if answer.status_code == 429:
            return None
    return statistics.median(times[True]), statistics.median(times[False])


async def _someone(target: Target, account: Account) -> Account:
    try:
        return await target.fresh(logged_in=False)
    except Unavailable:
        return account
