"""One connection survives whatever well-framed requests carry: malformed, oversized, in pieces, one after the other."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from tests.core.api.server import serving

LIMIT = 2000
ROUNDS = 500

router = APIRouter(prefix="/t")


class Thing(BaseModel):
    names: list[str]


@router.post("/thing")
async def thing(thing: Thing) -> int:
    return len(thing.names)


VALID = b'{"names": ["a", "b"]}'


def request(
    body: bytes = b"", *, target: bytes = b"/t/thing", method: bytes = b"POST", kind: bytes = b"application/json"
) -> bytes:
    """The bytes of a request that announces its length."""
    head = b"%s %s HTTP/1.1\r\nHost: test\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (method, target, kind, len(body)) + body


def in_pieces(*pieces: bytes) -> bytes:
    """The bytes of a request whose body comes in chunks."""
    head = (
        b"POST /t/thing HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


MALFORMED = [
    (request(b"{"), 422),
    (request(b'{"names": ["\\u0000"]}'), 422),
    (request(b'{"names": ["\\ud800"]}'), 422),
    (request(b'{"names": ["\xff"]}'), 422),
    (request(b'{"names": [], "names": []}'), 422),
    (request(b"[" * 1500), 422),
    (request(b"1" * 1900), 422),
    (request(b'{"names": 1e999}'), 422),
    (request(VALID, kind=b"text/plain"), 422),
    (request(VALID, kind=b"multipart/form-data"), 422),
    (request(b"x" * (LIMIT + 1)), 413),
    (request(b"x" * 300_000), 413),
    (in_pieces(*[b"x" * 1000] * 30), 413),
    (in_pieces(b'{"names": ["\\u0', b'000"]}'), 422),
    (request(), 422),
    (request(target=b"/t/thing?q=%00", method=b"GET"), 422),
    (request(target=b"/t/%ff", method=b"GET"), 422),
    (request(target=b"/t/nothing", body=VALID), 404),
    (request(method=b"DELETE", body=VALID), 405),
]


@asynccontextmanager
async def connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw one, closed in the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Status, headers and body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(head.split()[1]), head.lower(), await reader.readexactly(int(length.partition(b":")[2]))


@pytest.fixture(params=["httptools", "h11"])
async def port(request: pytest.FixtureRequest, app: FastAPI) -> AsyncIterator[int]:
    async with serving(request.param, router, MAX_BODY_SIZE=LIMIT) as port:
        yield port


class TestOneConnection:
    async def test_five_hundred_times_a_malformed_request_and_a_valid_one(self, port: int) -> None:
        async with asyncio.timeout(120), connection(port) as (reader, writer):
            for malformed, expected in itertools.islice(itertools.cycle(MALFORMED), ROUNDS):
                writer.write(malformed)
                status, head, body = await answer(reader)
                assert (status, orjson.loads(body)["status"]) == (expected, expected), malformed[:200]
                assert b"content-type: application/problem+json" in head
                assert b"connection: close" not in head
                writer.write(request(VALID))
                assert (await answer(reader))[::2] == (200, b"2")

    async def test_both_at_once_are_answered_in_their_order(self, port: int) -> None:
        async with asyncio.timeout(60), connection(port) as (reader, writer):
            for malformed, expected in MALFORMED:
                writer.write(malformed + request(VALID))
                assert (await answer(reader))[0] == expected, malformed[:200]
                assert (await answer(reader))[::2] == (200, b"2")
