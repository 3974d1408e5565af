"""Limits of websockets: how often one may connect, and how much one may say."""

from typing import Any
from uuid import uuid4

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket

from app.core.api import ConfigurableRateLimiter
from app.core.exceptions import PermissionDeniedError
from tests.core.api.asgi import WebSocketExchange
from tests.core.api.conftest import make_app

UNIQUE = str(uuid4())
messages = ConfigurableRateLimiter(times=2, seconds=60, name=f"messages-{UNIQUE}")
connecting = ConfigurableRateLimiter(times=3, seconds=60, name=f"connecting-{UNIQUE}")

router = APIRouter()


@router.websocket("/t/echo", dependencies=[Depends(connecting)])
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await messages.count(websocket)
        await websocket.send_text(text)


@router.websocket("/t/forbidden")
async def forbidden(websocket: WebSocket) -> None:
    await websocket.accept()
    raise PermissionDeniedError


@pytest.fixture
def application(app: FastAPI) -> FastAPI:
    return make_app(router, RATE_LIMITER_ENABLED=True)


async def talk(application: FastAPI, path: str, client: str, *texts: str) -> list[dict[str, Any]]:
    exchange = WebSocketExchange(path, client=client, texts=list(texts))
    await exchange.run(application)
    return exchange.received


class TestWebSockets:
    async def test_connecting_is_limited_and_the_refusal_is_a_problem(self, application: FastAPI) -> None:
        for _ in range(3):
            received = await talk(application, "/t/echo", "192.0.2.7")
            assert [message["type"] for message in received] == ["websocket.accept"]
        received = await talk(application, "/t/echo", "192.0.2.7")
        assert received[0]["type"] == "websocket.http.response.start"
        assert received[0]["status"] == 429
        assert 1 <= int(dict(received[0]["headers"])[b"retry-after"]) <= 60
        assert b'"code":"rate_limited"' in received[1]["body"]

    async def test_messages_are_limited_and_the_connection_says_come_again(self, application: FastAPI) -> None:
        received = await talk(application, "/t/echo", "192.0.2.8", "a", "b", "c")
        assert [message.get("text") for message in received[1:3]] == ["a", "b"]
        assert received[3:] == [{"type": "websocket.close", "code": 1013, "reason": "rate_limited"}]

    async def test_messages_count_over_all_connections_of_a_client(self, application: FastAPI) -> None:
        assert len(await talk(application, "/t/echo", "192.0.2.9", "a")) == 2
        received = await talk(application, "/t/echo", "192.0.2.9", "b", "c")
        assert [message["type"] for message in received[1:]] == ["websocket.send", "websocket.close"]
        assert len(await talk(application, "/t/echo", "192.0.2.10", "a")) == 2

    async def test_another_error_closes_for_good(self, application: FastAPI) -> None:
        received = await talk(application, "/t/forbidden", "192.0.2.11")
        assert received[1:] == [{"type": "websocket.close", "code": 1008, "reason": "permission_denied"}]

    async def test_off_means_off(self, app: FastAPI) -> None:
        application = make_app(router, RATE_LIMITER_ENABLED=False)
        assert len(await talk(application, "/t/echo", "192.0.2.12", *"abcde")) == 6
