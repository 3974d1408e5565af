"""Requests that cost their sender little: they must cost the service little too, and no answer may be long."""

import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx

from tests.attacks import wire
from tests.attacks.document import Operation
from tests.attacks.report import Report
from tests.attacks.target import Target, query_of

SECONDS = 2.0
"""How long one answer may take."""
LENGTH = 16 * 1024
"""How long the answer to what is refused may be."""
_JSON = {"Content-Type": "application/json"}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def attack(target: Target, report: Report) -> None:
    """Bodies at every operation that takes one, queries at every list, heads at the first."""
    for number, operation in enumerate(target.document.operations):
        account = await target.member()  # logged in anew where the last operation has ended its session
        if operation.bodies:
            target.visit()
            # In the short form each operation gets a third of them, and the next ones the others.
            chosen = slice(None) if target.full else slice(number % 3, None, 3)
            for name, headers, content in list(bodies(operation, full=target.full))[chosen]:
                given: dict[str, Any] = {"headers": headers, "content": content, "token": account.access}
                await _judge(target, report, f"{operation} with {name}", operation.method, operation, given)
            account = await target.member()  # `{}` is a body with which an operation may end the session
        if operation.method == "GET":
            for name, query in queries(operation):
                given = {"params": query, "token": account.access}
                await _judge(target, report, f"{operation} with {name}", "GET", operation, given)
    await _paths(target, report)
    if target.is_wire:
        await _heads(target, report)
    alive = await target.call("GET", "/profile", token=(await target.member()).access)
    report.judge("the service is well after all that", alive.status_code == 200, alive.status_code)


def bodies(operation: Operation, *, full: bool) -> Iterator[tuple[str, dict[str, str], bytes]]:
    """Names, headers and contents."""
    schema = next(iter(operation.bodies.values()))
    first = next(iter(operation.fields(schema)), "a")
    head = f'{{"{first}": '.encode()
    deep = 100_000
    yield "a deep array", _JSON, b"[" * deep + b"]" * deep
    yield "a deep value", _JSON, head + b"[" * deep + b"]" * deep + b"}"
    yield "a deep object", _JSON, b'{"a":' * deep + b"1" + b"}" * deep
    yield "80,000 names", _JSON, b"{" + b",".join(b'"%d":1' % number for number in range(80_000)) + b"}"
    yield "one name 50,000 times", _JSON, b"{" + b",".join([b'"a":1'] * 50_000) + b"}"
    yield "300,000 values", _JSON, b"[" + b"1," * 300_000 + b"1]"
    yield "a number of 500,000 digits", _JSON, head + b"9" * 500_000 + b"}"
    yield "1e400", _JSON, head + b"1e400}"
    yield "a text of 500 KB", _JSON, head + b'"' + b"a" * 500_000 + b'"}'
    yield "300,000 escapes", _JSON, head + b'"' + b"\\u0041" * 100_000 + b'"}'
    yield "2 MiB", _JSON, head + b'"' + b"a" * 2_097_152 + b'"}'
    yield "a gzip body", _JSON | {"Content-Encoding": "gzip"}, gzip.compress(b" " * (20_000_000 if full else 2_000_000))
    yield "a body said to be gzip", _JSON | {"Content-Encoding": "gzip"}, b"{}"
    yield "a body said to be br", _JSON | {"Content-Encoding": "br, gzip, deflate"}, b"{}"
    yield (
        "another charset",
        {"Content-Type": "application/json; charset=utf-32"},
        json.dumps({first: "a"}).encode("utf-32"),
    )
    yield "blanks", _JSON, b" " * 500_000
    yield "100,000 empty form fields", _FORM, b"&" * 100_000
    yield "10,000 form fields", _FORM, b"&".join(b"a%d=1" % number for number in range(10_000))
    yield "one form field of 500 KB", _FORM, first.encode() + b"=" + b"%41" * 166_000
    parts = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="a%d"\r\n\r\n1\r\n' % number for number in range(5_000)
    )
    yield "5,000 parts", {"Content-Type": "multipart/form-data; boundary=b"}, parts + b"--b--\r\n"
    yield (
        "a part with a long head",
        {"Content-Type": "multipart/form-data; boundary=b"},
        b"--b\r\n" + b"X: a\r\n" * 50_000,
    )
    yield (
        "a boundary of 100 KB",
        {"Content-Type": "multipart/form-data; boundary=" + "b" * 7_000},
        b"--" + b"b" * 400_000,
    )
    yield "no content type", {"Content-Type": ""}, b"{" * 10_000


def queries(operation: Operation) -> Iterator[tuple[str, Any]]:
    """Names and queries."""
    needed = query_of(operation)
    yield "5,000 parameters", needed | {f"a{number}": "1" for number in range(5_000)}
    yield "one parameter 5,000 times", [*needed.items(), *[("a", "1")] * 5_000]
    for one in operation.parameters("query"):
        name = one["name"]
        yield f"{name} of 50 KB", needed | {name: "a" * 50_000}
        yield f"1,000 of {name}", [*needed.items(), *[(name, "1")] * 1_000]
        yield f"a huge number as {name}", needed | {name: "9" * 5_000}
        if name in ("filters", "filter", "sort"):
            fields = ",".join(f"id{'__ne' * (number % 2)}:{number}" for number in range(1_000))
            yield f"1,000 fields in {name}", needed | {name: fields}
            yield f"a list of 5,000 in {name}", needed | {name: f"id:[{','.join(map(str, range(5_000)))}]"}
            yield f"brackets in {name}", needed | {name: "id:" + "[" * 10_000}
            yield f"wildcards in {name}", needed | {name: "email__ilike:" + "%a" * 5_000}


async def _judge(
    target: Target, report: Report, case: str, method: str, operation: Operation, given: dict[str, Any], path: str = ""
) -> None:
    seconds = SECONDS
    for _ in range(3):  # a busy machine takes long once, a bomb each time
        began = time.perf_counter()
        try:
            answer = await target.send(method, path or await target.filled(operation), **given)
        except (httpx.InvalidURL, httpx.LocalProtocolError):
            return  # no client could send it
        except httpx.TransportError:
            report.judge(case, True)  # the service closed the connection before it had it all
            return
        seconds = time.perf_counter() - began
        if seconds < SECONDS:
            break
    if answer.status_code < 400:
        report.judge(case, seconds < SECONDS, f"{answer.status_code} after {seconds:.1f} s")
        return
    bound = LENGTH if answer.status_code < 500 else 0
    told = f"{answer.status_code} after {seconds:.1f} s, {len(answer.content)} bytes"
    report.judge(case, seconds < SECONDS and len(answer.content) <= bound, told)


async def _paths(target: Target, report: Report) -> None:
    """Long and odd paths, and ids that are no numbers."""
    token = (await target.member()).access
    operation = target.document.operations[0]
    for path in (
        "/" + "a" * 30_000,
        "/" + "a/" * 10_000,
        "/" + "../" * 5_000,
        "/" + "%2e%2e%2f" * 3_000,
        "/%00",
        "/%ff",
        "//" * 5_000,
    ):
        given: dict[str, Any] = {"token": token}
        await _judge(target, report, f"the path {path[:12]}", "GET", operation, given, target.document.prefix + path)
    for operation in target.document.operations:
        token = (await target.member()).access
        for value in (
            "0",
            "-1",
            "9" * 30,
            "9" * 4_000,
            "1e9",
            "0x1",
            "%00",
            "1%00",
            "NaN",
            "%F0%9F%A6%84",
            "1;x",
            "..",
            "%2e%2e",
            "1.5",
        ):
            if operation.placeholders:
                ids = dict.fromkeys(operation.placeholders, value)
                kind = next(iter(operation.bodies), None)
                given = {
                    "token": token,
                    "params": query_of(operation),
                    **({kind: operation.example(kind)} if kind else {}),
                }
                path = await target.filled(operation, ids)
                await _judge(
                    target, report, f"{operation} with id {value[:8]}", operation.method, operation, given, path
                )


async def _heads(target: Target, report: Report) -> None:
    """Heads that only a server reads."""
    path = next((one.path for one in target.document.operations if one.method == "GET" and not one.placeholders), "/")
    for name, headers in {
        "a header of 1 MB": [(b"X", b"a" * 1_000_000)],
        "10,000 headers": [(b"X%d" % number, b"a") for number in range(10_000)],
        "one header 10,000 times": [(b"X", b"a")] * 10_000,
        "10,000 cookies": [(b"Cookie", b"; ".join(b"a%d=1" % number for number in range(10_000)))],
        "a header name of 100 KB": [(b"X" * 100_000, b"a")],
        "50,000 ranges": [(b"Range", b"bytes=" + b",".join([b"0-"] * 20_000))],
        "20,000 languages": [(b"Accept-Language", b",".join([b"a;q=0.1"] * 8_000))],
    }.items():
        began = time.perf_counter()
        answers = await wire.exchange(target, wire.request("GET", path, headers=headers), seconds=3)
        seconds = time.perf_counter() - began
        refused = not answers or (answers[0].status_code < 500 and len(answers[0].content) <= LENGTH)
        report.judge(name, refused and seconds < SECONDS + 3, [one.status_code for one in answers])
    long = wire.request("GET", path + "?" + "a" * 2_000_000)
    answers = await wire.exchange(target, long, seconds=3)
    report.judge(
        "a query of 2 MB",
        not answers or answers[0].status_code in (400, 414, 431),
        [one.status_code for one in answers],
    )
