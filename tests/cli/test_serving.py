"""What `kit run` reads before a body is bounded, and refused with a problem that reaches the client."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
from fastapi import APIRouter, FastAPI, Request

from app.cli.serving import MAX_FIELDS, MAX_HEAD_SIZE, Connection
from app.core.api.middlewares import arrived_at
from app.core.db import utcnow
from tests.core.api.server import serving
from tests.core.api.test_connections import answer, connection

router = APIRouter(prefix="/t")


@router.api_route("/fields", methods=["GET", "POST"])
async def fields(request: Request) -> int:
    await request.body()
    return len(request.headers)


@router.post("/arrival")
async def arrival(request: Request) -> bool:
    came = utcnow()
    await request.body()
    return arrived_at(request) <= came


@pytest.fixture
async def port(app: FastAPI) -> AsyncIterator[int]:
    async with serving(Connection, router) as port:
        yield port


HEAD = b"GET /t/fields HTTP/1.1\r\nHost: test\r\n"
CHUNKED = b"POST /t/fields HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
VALUE = b"x" * (MAX_HEAD_SIZE - len(HEAD) - 100)


class TestHead:
    @pytest.mark.parametrize(
        ("request_", "count"),
        [
            (HEAD + b"A: b\r\n" * (MAX_FIELDS - 1) + b"\r\n", MAX_FIELDS),
            (HEAD + b"A: %s\r\n\r\n" % VALUE, 2),
            (CHUNKED + b"Authorization: Bearer x\r\nB: c\r\n\r\n", 2),
        ],
    )
    async def test_what_fits_is_served_again_and_again(self, port: int, request_: bytes, count: int) -> None:
        async with asyncio.timeout(60), connection(port) as (reader, writer):
            for cut in range(1, 4):
                writer.write(request_[:cut])
                await writer.drain()
                writer.write(request_[cut:])
                status, _, body = await answer(reader)
                assert (status, int(body)) == (200, count)

    @pytest.mark.parametrize(
        ("request_", "status", "code"),
        [
            (HEAD + b"A: b\r\n" * MAX_FIELDS + b"\r\n", 431, "header_too_large"),
            (HEAD + b"A: b\r\n" * 200_000, 431, "header_too_large"),
            (HEAD + b"A: %s\r\nB: %s\r\n\r\n" % (VALUE, VALUE), 431, "header_too_large"),
            (HEAD + b"A: " + b"x" * 2_000_000, 431, "header_too_large"),
            (HEAD + b"A:" + b" " * 2_000_000, 431, "header_too_large"),
            (b"GET /" + b"x" * 2_000_000, 414, "uri_too_long"),
            (CHUNKED + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n", 431, "header_too_large"),
            (CHUNKED + b"A: " + b"x" * 2_000_000, 431, "header_too_large"),
            (b"NONSENSE\r\n\r\n", 400, "bad_request"),
        ],
    )
    async def test_what_does_not_is_refused(self, port: int, request_: bytes, status: int, code: str) -> None:
        async with asyncio.timeout(60), connection(port) as (reader, writer):
            writer.write(request_)
            found, head, body = await answer(reader)
            assert (found, orjson.loads(body)["code"]) == (status, code)
            assert b"content-type: application/problem+json" in head
            assert b"connection: close" in head
            assert await reader.read() == b""

    async def test_the_request_before_is_answered_and_no_other(self, port: int) -> None:
        async with asyncio.timeout(60), connection(port) as (reader, writer):
            writer.write(HEAD + b"\r\n" + HEAD + b"A: b\r\n" * 200 + b"\r\n")
            status, head, _ = await answer(reader)
            assert (status, b"connection: close" in head) == (200, True)
            assert await reader.read() == b""

    async def test_of_two_requests_at_once_neither_is_taken_for_the_other(self, port: int) -> None:
        async with asyncio.timeout(60), connection(port) as (reader, writer):
            writer.write(HEAD + b"\r\n" + CHUNKED + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n")
            assert b"431" not in await reader.read()


async def test_a_request_has_arrived_before_the_service_reads_it(port: int) -> None:
    async with asyncio.timeout(60), connection(port) as (reader, writer):
        writer.write(b"POST /t/arrival HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\n\r\n{}")
        assert (await answer(reader))[2] == b"true"
