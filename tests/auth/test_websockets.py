"""Callers of websockets and streams: over the wire, from the bearer header, refused before the socket is accepted."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, WebSocket
from fastapi.sse import EventSourceResponse
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from app.auth import ActiveUser, AuthGateway, CurrentUser, OptionalUser
from app.auth.policies import requires_permission
from app.core.db.session import Database
from app.core.deps import EventsService, MailService, QueueService
from tests.core.api.asgi import WebSocketExchange
from tests.core.api.conftest import make_app
from tests.core.api.server import serving
from tests.core.log.capture import captured_log
from tests.factories.user import UserFactory
from tests.utils import login_user

router = APIRouter(prefix="/ws")


async def tell(websocket: WebSocket, **what: Any) -> None:
    await websocket.accept()
    await websocket.send_json(what)
    await websocket.receive_text()


@router.websocket("/current")
async def current(
    websocket: WebSocket, user: CurrentUser, events: EventsService, mail: MailService, queue: QueueService
) -> None:
    await tell(websocket, user=user.id)


@router.websocket("/active")
async def active(websocket: WebSocket, user: ActiveUser, gateway: AuthGateway) -> None:
    await tell(websocket, user=user.id)


@router.websocket("/allowed", dependencies=[Depends(requires_permission("users:read"))])
async def allowed(websocket: WebSocket) -> None:
    await tell(websocket)


@router.websocket("/optional")
async def optional(websocket: WebSocket, user: OptionalUser) -> None:
    await tell(websocket, user=user and user.id)


@router.websocket("/number")
async def number(websocket: WebSocket, number: int, x_tenant: Annotated[str, Header()] = "") -> None:
    await tell(websocket)


@router.websocket("/bug")
async def bug(websocket: WebSocket, late: bool = False) -> None:
    if late:
        await websocket.accept()
    raise RuntimeError("hunter2")


@router.post("/stream", response_class=EventSourceResponse)
async def stream(user: ActiveUser) -> AsyncIterator[int]:
    yield user.id
    await asyncio.Event().wait()


Login = Callable[..., Awaitable[dict[str, str]]]


@pytest.fixture
async def headers(client: httpx.AsyncClient, committed: Database) -> Login:
    async def log_in(**values: Any) -> dict[str, str]:
        user = await UserFactory.create(**values)
        return {"Authorization": f"Bearer {(await login_user(client, user))['access_token']}"}

    return log_in


@pytest.fixture
async def port(app: FastAPI) -> AsyncIterator[int]:
    async with serving("httptools", router) as port:
        yield port


def dial(port: int, path: str, headers: dict[str, str] | None = None) -> connect:
    return connect(f"ws://127.0.0.1:{port}/ws{path}", additional_headers=headers)


async def refusal(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    with pytest.raises(InvalidStatus) as raised:
        async with dial(port, path, headers):
            pass
    answer = raised.value.response
    problem = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert problem["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, problem


async def heard(socket: ClientConnection) -> Any:
    return json.loads(await socket.recv())


class TestOverTheWire:
    @pytest.mark.parametrize("path", ["/current", "/active"])
    async def test_the_caller_is_known_and_nothing_is_held(
        self, port: int, headers: Login, committed: Database, path: str
    ) -> None:
        async with asyncio.timeout(60):
            async with dial(port, path, await headers()) as socket:
                told = await heard(socket)
                # SQLite has one writer: a socket that held it would keep this out.
                assert (await UserFactory.create()).id > told["user"]
                assert committed.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # of a pool with a size
                await socket.send("done")

    async def test_who_may_come_without_a_token(self, port: int, headers: Login) -> None:
        async with asyncio.timeout(60), dial(port, "/optional") as socket:
            assert await heard(socket) == {"user": None}
        assert (await refusal(port, "/optional", {"Authorization": "Bearer nonsense"}))[0] == 401

    async def test_no_caller_is_a_401(self, port: int, headers: Login) -> None:
        for given in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}):
            status, problem = await refusal(port, "/active", given)
            assert (status, problem["status"]) == (401, 401)

    async def test_a_caller_who_may_not_is_a_403(self, port: int, headers: Login) -> None:
        status, problem = await refusal(port, "/allowed", await headers())
        assert (status, problem["code"]) == (403, "action_not_allowed")

    async def test_one_who_may_gets_in(self, port: int, headers: Login) -> None:
        async with asyncio.timeout(60), dial(port, "/allowed", await headers(is_superuser=True)) as socket:
            assert await heard(socket) == {}
            assert socket.response is not None
            assert len(socket.response.headers["x-request-id"]) == 32

    async def test_input_that_does_not_fit_is_a_422_without_the_input(self, port: int) -> None:
        status, problem = await refusal(port, "/number?number=hunter2")
        assert (status, problem["errors"][0]["loc"]) == (422, ["query", "number"])
        assert "hunter2" not in json.dumps(problem)

    async def test_refusals_and_clients_that_leave_are_no_errors(self, port: int) -> None:
        with captured_log() as lines:
            await refusal(port, "/active")
            async with asyncio.timeout(60), dial(port, "/optional") as socket:
                await heard(socket)
            async with asyncio.timeout(60), dial(port, "/bug?late=true") as socket:
                await socket.wait_closed()
        assert [line["event"] for line in lines.all() if line["level"] == "error"] == ["websocket failed"], (
            "that of the bug"
        )

    async def test_a_refusal_has_a_line_that_names_the_caller(self, port: int, headers: Login) -> None:
        given = await headers()
        with captured_log() as lines:
            await refusal(port, "/active")
            await refusal(port, "/allowed", given)
            async with asyncio.timeout(60), dial(port, "/active", given) as socket:
                user_id = (await heard(socket))["user"]
        unknown, known = lines.all("request")
        assert (unknown["method"], unknown["route"], unknown["status"]) == ("WEBSOCKET", "/ws/active", 401)
        assert "user" not in unknown
        assert (known["route"], known["status"], known["code"]) == ("/ws/allowed", 403, "action_not_allowed")
        assert (known["user"], known["missing"]) == (f"user:{user_id}", "users:read")

    async def test_a_bug_is_a_problem_before_and_a_close_after(self, port: int) -> None:
        status, problem = await refusal(port, "/bug")
        assert (status, problem["code"]) == (500, "internal_error")
        with pytest.raises(ConnectionClosedError) as raised:
            async with asyncio.timeout(60), dial(port, "/bug?late=true") as socket:
                await socket.recv()
        assert raised.value.rcvd is not None
        assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (1011, "internal_error")

    async def test_a_stream_holds_no_unit_while_it_is_open(self, port: int, headers: Login) -> None:
        async with (
            asyncio.timeout(60),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
            http.stream("POST", "/ws/stream", headers=await headers()) as answer,
        ):
            assert (await anext(answer.aiter_lines())).startswith("data: ")
            await UserFactory.create()


async def test_a_server_that_cannot_refuse_with_an_answer_closes(app: FastAPI, db: Any) -> None:
    exchange = WebSocketExchange("/ws/active", client="192.0.2.7", texts=[])
    exchange.scope["extensions"] = {}
    application = make_app(router)
    with captured_log() as lines:
        await exchange.run(application)
    assert exchange.received == [{"type": "websocket.close", "code": 1008}]
    assert lines.one("request")["status"] == 403
