"""Behind the real server: connections that go on, clients that leave, nothing printed twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse

from tests.core.api import server
from tests.core.log.capture import LogLines, captured_log

router = APIRouter(prefix="/t")


@router.post("/body")
async def body(value: list[int]) -> int:
    return len(value)


@router.get("/bug")
async def bug() -> None:
    raise RuntimeError("once only")


@router.get("/midway")
async def midway() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("once only")

    return StreamingResponse(chunks())


@router.get("/endless")
async def endless() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100
            await asyncio.sleep(0.01)

    return StreamingResponse(chunks())


@asynccontextmanager
async def serving(kind: Literal["h11", "httptools"]) -> AsyncIterator[str]:
    """The base URL of the application on a free port."""
    async with server.serving(kind, router, MAX_BODY_SIZE=1000) as port:
        yield f"http://127.0.0.1:{port}"


async def line_of(lines: LogLines, event: str) -> None:
    """Wait for a line; some are written after the client has gone."""
    async with asyncio.timeout(60):
        while not lines.all(event):  # noqa: ASYNC110  nothing tells when a line is written
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["h11", "httptools"])
class TestServer:
    async def test_a_connection_goes_on_after_a_body_was_refused(
        self, app: FastAPI, kind: Literal["h11", "httptools"]
    ) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(50):
                yield b"x" * 10_000

        headers = {"content-type": "application/json"}
        async with serving(kind) as url, httpx.AsyncClient(base_url=url, timeout=60) as http:
            for content in (b"x" * 500_000, pieces()):
                answer = await http.post("/t/body", content=content, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (413, "content_too_large")
            address = answer.extensions["network_stream"].get_extra_info("client_addr")
            answer = await http.post("/t/body", json=[1, 2])
            assert answer.json() == 2
            assert answer.extensions["network_stream"].get_extra_info("client_addr") == address

    async def test_an_error_is_printed_once(self, app: FastAPI, kind: Literal["h11", "httptools"]) -> None:
        async with serving(kind) as url, httpx.AsyncClient(base_url=url, timeout=60) as http:
            with captured_log() as lines:
                assert (await http.get("/t/bug")).status_code == 500
                with pytest.raises(httpx.RemoteProtocolError):
                    await http.get("/t/midway")
        assert lines.text.count("RuntimeError: once only") == 2
        assert [line["route"] for line in lines.all("request")] == ["/t/bug", "/t/midway"]

    async def test_a_client_that_leaves_a_stream(self, app: FastAPI, kind: Literal["h11", "httptools"]) -> None:
        async with serving(kind) as url, httpx.AsyncClient(base_url=url, timeout=60) as http:
            with captured_log() as lines:
                async with http.stream("GET", "/t/endless") as answer:
                    assert answer.status_code == 200
                await line_of(lines, "request")
        assert lines.one("request")["status"] == 499
