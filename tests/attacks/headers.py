"""Header injection: line breaks wherever a value may end up in a header, and a Host that is not ours."""

from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from tests.attacks import wire
from tests.attacks.document import Operation
from tests.attacks.report import Report
from tests.attacks.target import Account, Target, query_of

EVIL = "x-injected"
_BREAKS = ("\r\n", "\n", "\r", "\r\n ", "\u2028", "\u010d\u010a", "\x85", "\x0b", "\x00")
_ENCODED = ("%0d%0a", "%0a", "%0d", "%0D%0A%20", "%E5%98%8A%E5%98%8D", "%250d%250a", "\\r\\n")
_REFLECTED = (
    "X-Request-ID",
    "X-Conversation-ID",
    "User-Agent",
    "Origin",
    "Referer",
    "If-None-Match",
    "Accept-Language",
)
_HOST = "evil.example.net"


async def attack(target: Target, report: Report) -> None:
    """Everything that is a string, everywhere it can be sent."""
    account = await target.member()
    await _paths_and_queries(target, report, account)
    await _fields(target, report)
    account = await target.member()
    await _values(target, report, account)
    await _hosts(target, report, account)


def faults(headers: Sequence[tuple[bytes, bytes]]) -> str:
    """What shows that an answer's headers were broken into; "" if nothing."""
    for name, value in headers:
        if name.lower() == EVIL.encode():
            return f"the answer has the header {EVIL}"
        if b"\r" in value or b"\n" in value or b"\0" in value:
            return f"{name.decode('latin-1')} has a line break"
        if name.lower() == b"set-cookie" and EVIL.encode() in value.lower():
            return "a cookie has what was sent"
    return ""


def _texts(breaks: Sequence[str]) -> Iterator[str]:
    for one in breaks:
        yield f"a{one}{EVIL}: 1"
        yield f"a{one}Set-Cookie: {EVIL}=1"


async def _paths_and_queries(target: Target, report: Report, account: Account) -> None:
    for operation in target.document.operations:
        if operation.method != "GET":
            continue
        base = await target.filled(operation)
        places = [f"{base}/", f"{base}?x=", *(f"{base}?{one['name']}=" for one in operation.parameters("query"))]
        path_names = [one["name"] for one in operation.parameters("path")]
        places += [await target.filled(operation, {name: "1"}) for name in path_names]
        for place in places:
            for text in _ENCODED[:: 1 if target.full else 3]:
                answer = await target.send("GET", f"{place}{text}{EVIL}:%201", token=account.access)
                found = faults(answer.headers.raw)
                report.judge(f"{operation} at {place[len(base) :] or 'the id'} with {text}", not found, found)


async def _fields(target: Target, report: Report) -> None:
    """Every string of every body, and every query parameter as it is."""
    for operation in target.document.operations:
        account = await target.member()  # logged in anew where the last operation has ended its session
        for kind, schema in operation.bodies.items():
            for name, one in operation.fields(schema).items():
                if one.get("type", "string") == "string":
                    for text in list(_texts(_BREAKS))[:: 1 if target.full else 6]:
                        arguments: dict[str, Any] = {kind: operation.example(kind) | {name: text}}
                        # Without a credential: what is refused is refused before, what is open is tried.
                        token = None if operation.secured and operation.method == "DELETE" else account.access
                        path = await target.filled(operation)
                        answer = await target.send(operation.method, path, token=token, **arguments)
                        found = faults(answer.headers.raw)
                        held = None if answer.status_code == 429 else not found
                        report.judge(f"{operation} with {text[:6]!r} in {name}", held, found or answer.status_code)


async def _values(target: Target, report: Report, account: Account) -> None:
    """Headers that come back, with line breaks as they are: no client library sends those."""
    operations = [one for one in target.document.operations if one.method == "GET" and not one.placeholders]
    # The layers that give headers back are the same for every route.
    operations = operations if target.full else operations[:1] + operations[-2:]
    for operation in operations:
        declared = [one["name"] for one in operation.parameters("header")]
        for name in (*_REFLECTED, *declared):
            for text in (*_texts(_BREAKS), f'a"; {EVIL}=1', "a" * 300, "a;b,c", f"{EVIL}\t1", "\u00e9"):
                fields = [(name, text), ("Authorization", f"Bearer {account.access}")]
                raw = [(key.encode(), value.encode("utf-8")) for key, value in fields]
                answer = await unchecked(target, operation, raw)
                if answer is None:
                    report.judge(f"{operation} with {name}: {text[:12]!r}", True)
                    continue
                found = faults(answer.headers.raw)
                report.judge(f"{operation} with {name}: {text[:12]!r}", not found, found)
        cookie = [(b"Cookie", f"conversation_id=a\r\n{EVIL}: 1; conversation_id=b; Path=/; {EVIL}".encode())]
        answer = await unchecked(target, operation, cookie)
        found = faults(answer.headers.raw) if answer else ""
        report.judge(f"{operation} with a broken cookie", not found, found)


async def unchecked(target: Target, operation: Operation, headers: list[tuple[bytes, bytes]]) -> httpx.Response | None:
    """The answer to headers that break the rules; None if the server closes the connection without one."""
    path = operation.path
    if not target.is_wire:
        return await target.send("GET", path, params=query_of(operation), headers=headers)
    answers = await wire.exchange(target, wire.request("GET", path, headers=headers), seconds=3)
    return answers[0] if answers else None


async def _hosts(target: Target, report: Report, account: Account) -> None:
    """No answer is made of the Host that was sent, nor of what stands for one."""
    names = ("Host", "X-Forwarded-Host", "X-Host", "X-Original-Host", "X-Forwarded-Server", "X-HTTP-Host-Override")
    for operation in target.document.operations:
        if operation.method == "GET" and not operation.placeholders:
            for name in names:
                headers = {name: _HOST, "X-Forwarded-Proto": "gopher"}
                query = query_of(operation) | ({"per_page": 1} if operation.parameters("query") else {})
                answer = await target.send("GET", operation.path, params=query, token=account.access, headers=headers)
                shown = _HOST in answer.text or any(_HOST in value for value in answer.headers.values())
                report.judge(f"{operation} with {name}", not shown, "the answer has the host")
    for name in names:
        await target.call("POST", "/auth/restore-password", json={"email": account.email}, headers={name: _HOST})
    if target.inside:
        await target.inside.settle()
        told = [str(mail["Subject"]) for mail in target.inside.mails() if _HOST in mail.as_string()]
        report.judge("mails asked for with another Host", not told, told)
