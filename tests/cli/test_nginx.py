"""`deploy/nginx.conf` in a real nginx: slow clients are cut, cost the service nothing, and others are served."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi import Response as HttpResponse

from app.cli.serving import MAX_HEAD_SIZE, Connection
from app.core.api import PaginatedResponse
from app.core.configs import PROJECT_ROOT, AppConfig
from app.core.db import PaginatedResult
from tests.core.api.server import serving
from tests.processes import free_port, nginx

TEXT = (PROJECT_ROOT / "deploy" / "nginx.conf").read_text()

pytestmark = pytest.mark.needs("nginx")

router = APIRouter(prefix="/t")
heard: list[str] = []


@router.post("/body")
async def read(request: Request) -> str:
    heard.append((await request.body()).decode())
    return f"{request.client and request.client.host} {request.url.scheme}"


@pytest.fixture
async def port(app: FastAPI, tmp_path: Path) -> AsyncIterator[int]:
    """nginx before the service, with less patience."""
    heard.clear()
    port = free_port()
    async with serving(Connection, router, TRUSTED_PROXIES=["127.0.0.1"]) as behind:
        changes = {"127.0.0.1:8000": f"127.0.0.1:{behind}", "listen 80": f"listen 127.0.0.1:{port}"}
        with nginx(tmp_path, changes | {"_timeout 10s": "_timeout 1s"}):
            async with asyncio.timeout(60):
                while not await _answers(port):  # noqa: ASYNC110  nginx tells nobody
                    await asyncio.sleep(0.05)
            yield port


async def _answers(port: int) -> bool:
    try:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"http://127.0.0.1:{port}/health/live")).is_success
    except httpx.TransportError:
        return False


@router.get("/items")
async def items(request: Request, response: HttpResponse) -> PaginatedResponse[int]:
    return PaginatedResponse[int].of(PaginatedResult([1], 1, 1, 1), request, response)


async def test_answers_with_links_for_a_long_query_come_through(port: int) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.get(f"http://127.0.0.1:{port}/t/items?a={'a' * 4000}")
    assert (answer.status_code, len(answer.headers["link"]) > 8000) == (200, True)


async def test_slow_clients_are_cut_and_others_served_meanwhile(port: int) -> None:
    beginnings = [
        b"",
        b"POST /t/body HTTP/1.1\r\nHost: a\r\nX-A: ",
        b"POST /t/body HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nslow",
    ]
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(30)]
    for number, (_, writer) in enumerate(slow):
        writer.write(beginnings[number % 3])
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(f"http://127.0.0.1:{port}/t/body", content="fast", headers=headers)
    assert answer.json() == "127.0.0.1 http"
    async with asyncio.timeout(60):
        for reader, writer in slow:
            with suppress(ConnectionResetError):
                assert b" 200 " not in await reader.read()
            writer.close()
    assert heard == ["fast"]


async def test_it_agrees_with_kit_run(port: int) -> None:
    assert f"client_max_body_size {AppConfig().MAX_BODY_SIZE // 2**20}m;" in TEXT
    assert f"large_client_header_buffers 1 {MAX_HEAD_SIZE // 1024}k;" in TEXT
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        fits = {f"X-{number}": "x" * 15_000 for number in range(4)}
        assert (await http.get("/health/live", headers=fits)).status_code == 200
        assert (await http.get("/health/live", headers=fits | {"X-5": "x" * 15_000})).status_code == 400
        assert (await http.get("/health/live?" + "x" * 60_000)).status_code == 200
        assert (await http.post("/t/body", content=b"x" * (2**20 + 1))).status_code == 413
