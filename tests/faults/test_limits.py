"""Limits behind real servers: exact in one process and in several."""

import asyncio
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.conftest import backend
from tests.processes import environment, served_settings, started, wait_for

SHARED = pytest.mark.skipif(not backend.environment()["REDIS_URL"], reason="needs Redis")


@contextmanager
def servers(folder: Path, count: int) -> Iterator[list[str]]:
    """The base URLs of as many processes that serve the application and share their stores."""
    with served_settings() as settings, ExitStack() as stack:
        env = environment(
            folder, **settings, ENVIRONMENT="local", SECRET_KEY=uuid4().hex, RATE_LIMITER_TIMEOUT_SECONDS="10"
        )
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        ports = [listener.getsockname()[1] for listener in listeners]
        for listener in listeners:
            listener.close()
        for port in ports:
            command = [sys.executable, "-m", "uvicorn", "tests.faults.limited:app", "--port", str(port)]
            command += ["--no-proxy-headers", "--no-access-log"]
            stack.enter_context(started(*command, env=env, log=folder / f"{port}.log"))
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        for url in urls:
            wait_for(lambda url=url: _answers(url))  # type: ignore[misc]  # mypy infers no default's type in a lambda
        yield urls


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live").is_success
    except httpx.TransportError:
        return False


async def sixty(urls: list[str]) -> "Counter[int]":
    async with httpx.AsyncClient(timeout=120) as http:
        answers = await asyncio.gather(*(http.get(f"{urls[n % len(urls)]}/limited") for n in range(60)))
    return Counter(answer.status_code for answer in answers)


@pytest.mark.usefixtures("template")
class TestSixtyAtOnce:
    @pytest.mark.parametrize("count", [1, pytest.param(2, marks=SHARED)])
    async def test_exactly_three_pass(self, tmp_path: Path, count: int) -> None:
        with servers(tmp_path, count) as urls:
            assert await sixty(urls) == {200: 3, 429: 57}
