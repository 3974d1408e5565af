"""Clients that are logged in: what they may do, over HTTP and websockets."""

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import ActiveUser, requires_permission
from app.core.db import Database
from tests.auth.fixtures import AsUser
from tests.clients import Client
from tests.core.api.conftest import make_app
from tests.factories.user import UserFactory

router = APIRouter()


@router.websocket("/t/readers", dependencies=[Depends(requires_permission("users:read"))])
async def readers(websocket: WebSocket, user: ActiveUser) -> None:
    await websocket.accept()
    await websocket.send_json({"user": user.id})
    async for text in websocket.iter_text():
        await websocket.send_text(text[::-1])


async def me(client: httpx.AsyncClient) -> tuple[int, int | None]:
    """The status of the client's profile, and whose it is."""
    answer = await client.get("/api/v1/profile")
    return answer.status_code, answer.json().get("data", {}).get("id")


class TestAsUser:
    async def test_each_client_is_somebody_else_and_the_first_stays_anonymous(
        self, db: AsyncSession, client: Client, as_user: AsUser
    ) -> None:
        ann, bob = await as_user(), await as_user(username="bob")

        assert ann.user.id != bob.user.id
        assert await me(ann) == (200, ann.user.id)
        assert await me(bob) == (200, bob.user.id)
        assert await me(client) == (401, None)

    async def test_it_logs_in_who_is_there_already(self, db: AsyncSession, as_user: AsUser) -> None:
        ann = await UserFactory.create()

        assert await me(await as_user(ann)) == (200, ann.id)

    async def test_the_permissions_count_and_no_others(self, db: AsyncSession, as_user: AsUser) -> None:
        reader = await as_user(permissions=["users:read"])

        assert (await reader.get("/api/v1/users")).status_code == 200
        assert (await reader.patch(f"/api/v1/users/{reader.user.id}", json={"username": "x"})).status_code == 403
        assert (await (await as_user()).get("/api/v1/users")).status_code == 403

    async def test_a_scope_narrows_them(self, db: AsyncSession, as_user: AsUser) -> None:
        narrowed = await as_user(permissions=["users:read", "users:write"], scope=["users:write"])

        assert (await narrowed.get("/api/v1/users")).status_code == 403

    async def test_what_no_module_declares_is_refused_here(self, db: AsyncSession, as_user: AsUser) -> None:
        with pytest.raises(ValueError, match="no module declares user:read"):
            await as_user(permissions=["user:read"])
        with pytest.raises(KeyError, match="clerk"):
            await as_user(roles=["clerk"])

    async def test_its_session_is_one_that_can_be_ended(self, db: AsyncSession, as_user: AsUser) -> None:
        ann = await as_user()
        second = await as_user(ann.user)

        assert (await ann.post("/api/v1/auth/logout")).status_code == 204
        assert await me(ann) == (401, None)
        assert await me(second) == (200, ann.user.id)

    async def test_it_works_on_a_database_of_the_test(self, committed: Database, as_user: AsUser) -> None:
        ann = await as_user()

        assert await me(ann) == (200, ann.user.id)


class TestOthers:
    async def test_an_administrator_may_do_everything(self, db: AsyncSession, as_admin: AsUser) -> None:
        assert (await (await as_admin()).get("/api/v1/users")).status_code == 200

    async def test_nothing_works_with_what_has_expired(self, db: AsyncSession, as_expired: AsUser) -> None:
        late = await as_expired(permissions=["users:read"])

        answer = await late.get("/api/v1/users")

        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


class TestWebSockets:
    async def test_it_talks_both_ways(self, app: FastAPI, db: AsyncSession, as_user: AsUser) -> None:
        reader = await as_user(permissions=["users:read"], app=make_app(router))

        async with reader.websocket("/t/readers", params={"a": 1}) as socket:
            assert await socket.receive_json() == {"user": reader.user.id}
            socket.send_text("abc")
            assert await socket.receive_text() == "cba"

    async def test_a_refusal_is_an_error_with_its_answer(
        self, app: FastAPI, db: AsyncSession, as_user: AsUser, as_expired: AsUser
    ) -> None:
        application = make_app(router)
        for client, status in (
            (Client(application), 401),
            (await as_user(app=application), 403),
            (await as_expired(permissions=["users:read"], app=application), 401),
        ):
            with pytest.raises(httpx.HTTPStatusError) as refused:
                async with client.websocket("/t/readers"):
                    pass
            assert refused.value.response.status_code == status
            assert refused.value.response.json()["status"] == status
