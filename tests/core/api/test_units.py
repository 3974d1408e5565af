"""Routes that last: websockets and streams take no unit of work, and the start says so."""

from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Mount

from app.auth import CurrentUser
from app.core.api.route_checks import check_units
from app.core.deps import DBSession, db_session
from app.core.exceptions import ConfigError
from tests.core.api.conftest import make_app

router = APIRouter(prefix="/t")


async def helper(db: DBSession) -> None: ...


@router.websocket("/socket")
async def socket(websocket: WebSocket, db: DBSession) -> None: ...


@router.websocket("/deep-socket", dependencies=[Depends(helper)])
async def deep_socket(websocket: WebSocket) -> None: ...


@router.get("/items")
async def items(db: DBSession) -> AsyncIterator[int]:
    yield 1


@router.get("/events", response_class=EventSourceResponse)
async def events(db: Annotated[None, Depends(helper)]) -> AsyncIterator[int]:
    yield 1


@router.get("/made")
async def made(db: DBSession) -> EventSourceResponse:
    return EventSourceResponse(iter(()))


fine = APIRouter(prefix="/f")


@fine.websocket("/socket")
async def fine_socket(websocket: WebSocket, user: CurrentUser) -> None: ...


@fine.get("/events", response_class=EventSourceResponse)
async def fine_events(user: CurrentUser) -> AsyncIterator[int]:
    yield user.id


@fine.get("/file")
async def file(db: DBSession) -> StreamingResponse:
    return StreamingResponse(iter(["read before it begins"]))


class TestStart:
    async def test_names_every_route_its_place_and_the_fix(self, app: FastAPI) -> None:
        application = make_app(router, fine)
        with pytest.raises(ConfigError) as raised:
            async with application.router.lifespan_context(application):
                pass
        lines = str(raised.value).splitlines()
        assert [line.partition(" ")[0] for line in lines] == [
            "/t/socket",
            "/t/deep-socket",
            "/t/items",
            "/t/events",
            "/t/made",
        ]
        assert "tests/core/api/test_units.py:" in lines[0]
        assert "is a websocket: DBSession would last as long as the socket" in lines[0]
        assert "is a stream" in lines[2]
        assert all("async with session_scope() as db" in line for line in lines)

    async def test_sees_mounted_applications(self, app: FastAPI) -> None:
        inner = FastAPI()
        inner.add_api_websocket_route("/chat", socket)
        with pytest.raises(ConfigError, match=r"^/outer/inner/chat "):
            check_units([*make_app().routes, Mount("/outer", Starlette(routes=[Mount("/inner", inner)]))])

    async def test_lets_pass_what_ends_its_unit(self, app: FastAPI) -> None:
        check_units(make_app(fine).routes)


async def test_a_socket_never_makes_a_writer(app: FastAPI) -> None:
    socket = WebSocket({"type": "websocket"}, receive=None, send=None)  # type: ignore[arg-type]
    async for session in db_session(socket):
        assert session.info["kit_read_only"]
        assert not session.in_transaction()
