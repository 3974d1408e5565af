"""Request smuggling: framing on which two servers in a row might disagree. Needs a server that reads bytes."""

from collections.abc import Iterator

import httpx

from tests.attacks import wire
from tests.attacks.report import Report
from tests.attacks.target import Target

_MARK = "smuggled-93bd"
_SECOND = f"GET /{_MARK} HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\n\r\n".encode()
_FRAMED = ("two Hosts", "no Host", "Host with a path", "chunk: extension of 100 KB")
_CHUNKED = b"Transfer-Encoding: chunked"


def _post(path: str, *fields: bytes, body: bytes = b"", line: bytes = b"\r\n", host: bytes = b"Host: {host}") -> bytes:
    """A POST with exactly these fields."""
    head = [f"POST {path} HTTP/1.1".encode(), *([host] if host else []), b"Content-Type: application/json", *fields]
    return line.join(head) + line + line + body


def cases(path: str) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of requests that must be refused, or read as one."""
    inner = b"0\r\n\r\n" + _SECOND
    length = str(len(inner)).encode()
    yield "Content-Length and Transfer-Encoding", _post(path, b"Content-Length: " + length, _CHUNKED, body=inner)
    yield (
        "Transfer-Encoding and Content-Length",
        _post(path, _CHUNKED, b"Content-Length: 4", body=b"2\r\n{}\r\n" + inner),
    )
    yield "two lengths", _post(path, b"Content-Length: 2", b"Content-Length: 60", body=b"{}" + _SECOND)
    yield (
        "two lengths, the longer first",
        _post(path, b"Content-Length: 60", b"Content-Length: 2", body=b"{}" + _SECOND),
    )
    yield "two lengths in one field", _post(path, b"Content-Length: 2, 60", body=b"{}" + _SECOND)
    for value in (b"+2", b"-2", b"0x2", b"2 2", b"2_0", b"", b"02a", b"2.0", b"99999999999999999999999", b"\xb2"):
        yield f"length {value!r}", _post(path, b"Content-Length: " + value, body=b"{}" + _SECOND)
    variants = (
        *(b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked", b" Transfer-Encoding: chunked"),
        *(
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: identity, chunked",
            b"Transfer-Encoding:\x0bchunked",
        ),
        *(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked"),
        *(
            b"Transfer_Encoding: chunked",
            b"Transfer-Encoding: 'chunked'",
            b'Transfer-Encoding: "chunked"',
            b"X: x\nTransfer-Encoding: chunked",
        ),
        *(
            b"Transfer-Encoding: chunked;q=1",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding:\r\n chunked",
            b"Transfer-Encoding\t: chunked",
        ),
        *(b"X: x\rTransfer-Encoding: chunked", b"Transfer-Encoding: chu\x00nked", b"Transfer-Encoding: \xffchunked"),
    )
    for field in variants:
        yield f"{field!r} with a length", _post(path, b"Content-Length: " + length, field, body=inner)
    yield from _chunks(path)
    yield from _lines(path)


def _chunks(path: str) -> Iterator[tuple[str, bytes]]:
    for name, body in {
        "size with a sign": b"+2\r\n{}\r\n0\r\n\r\n",
        "size 0x2": b"0x2\r\n{}\r\n0\r\n\r\n",
        "negative size": b"-1\r\n{}\r\n0\r\n\r\n",
        "huge size": b"FFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n",
        "size that wraps around": b"10000000000000002\r\n{}\r\n0\r\n\r\n",
        "bare LF after the size": b"2\n{}\r\n0\r\n\r\n",
        "bare LF after the data": b"2\r\n{}\n0\r\n\r\n",
        "bare CR after the size": b"2\r{}\r\n0\r\n\r\n",
        "data longer than its size": b"1\r\n{}xx\r\n0\r\n\r\n",
        "extension with a bare LF": b"2;a\nxx\r\n{}\r\n0\r\n\r\n",
        "extension with a bare CR": b"2;a\rxx\r\n{}\r\n0\r\n\r\n",
        "extension of 100 KB": b"2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n\r\n",
        "empty size": b"\r\n{}\r\n0\r\n\r\n",
        "blank before the size": b" 2\r\n{}\r\n0\r\n\r\n",
        "trailers that are headers": b"2\r\n{}\r\n0\r\nContent-Length: 60\r\nAuthorization: Bearer x\r\n\r\n",
        "a bare LF at the end": b"2\r\n{}\r\n0\n\n",
    }.items():
        yield f"chunk: {name}", _post(path, _CHUNKED, body=body + _SECOND)


def _lines(path: str) -> Iterator[tuple[str, bytes]]:
    yield "bare LF as line ends", _post(path, b"Content-Length: 2", body=b"{}" + _SECOND, line=b"\n")
    yield "bare CR as line ends", _post(path, b"Content-Length: 2", body=b"{}" + _SECOND, line=b"\r")
    yield "folded field", _post(path, b"X: a\r\n b", b"Content-Length: 2", body=b"{}" + _SECOND)
    yield "two Hosts", _post(path, b"Host: evil.example.net", b"Content-Length: 2", body=b"{}" + _SECOND)
    yield "no Host", _post(path, b"Content-Length: 2", body=b"{}" + _SECOND, host=b"")
    yield "Host with a path", _post(path, b"Content-Length: 2", body=b"{}" + _SECOND, host=b"Host: evil/{host}")
    yield (
        "two Authorization fields",
        _post(path, b"Authorization: Bearer a", b"Authorization: Bearer b", b"Content-Length: 2", body=b"{}"),
    )
    yield "blank in a field name", _post(path, b"X Y: a", b"Content-Length: 2", body=b"{}" + _SECOND)
    yield "blank before the colon", _post(path, b"Content-Length : 2", body=b"{}" + _SECOND)
    yield "no colon", _post(path, b"Nonsense", b"Content-Length: 2", body=b"{}" + _SECOND)
    yield "NUL in a field", _post(path, b"X: a\0b", b"Content-Length: 2", body=b"{}" + _SECOND)
    yield "field without a name", _post(path, b": a", b"Content-Length: 2", body=b"{}" + _SECOND)
    host = b"\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"
    yield "HTTP/1.1 with a blank in the target", f"POST {path} x HTTP/1.1".encode() + host + _SECOND
    yield "HTTP/9.9", f"POST {path} HTTP/9.9".encode() + host + _SECOND
    yield "no version", f"POST {path}".encode() + host + _SECOND
    yield "another protocol", f"POST {path} ICE/1.1".encode() + host + _SECOND
    yield "HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SECOND
    yield "a method with a line break", b"PO\nST " + path.encode() + b" HTTP/1.1" + host + _SECOND


async def attack(target: Target, report: Report) -> None:
    """Each request on a connection of its own, with another behind it that must not be answered as one of ours."""
    path = target.path("/auth/refresh-token")
    for name, sent in cases(path):
        for process in range(len(target.urls)):
            answers = await wire.exchange(target, sent, seconds=2, process=process)
            held = _held(answers, framed=name in _FRAMED)
            report.judge(name, held, [one.status_code for one in answers])
    answers = await wire.exchange(target, _post(path, b"Content-Length: 2", body=b"{}" + _SECOND), seconds=3)
    statuses = [one.status_code for one in answers]
    report.judge("a sound request and one behind it are two", len(answers) == 2, statuses)


def _held(answers: list[httpx.Response], *, framed: bool) -> bool | None:
    """Refused, or one request with one answer; the rest was its body, or went down with the connection.

    Where the length is beyond doubt, what is behind it is a request of its own.
    """
    if not answers:
        return True
    if answers[0].status_code == 429:
        return None
    if framed:
        return answers[0].status_code in (400, 413, 422, 431)
    return len(answers) == 1 and 400 <= answers[0].status_code < 600
