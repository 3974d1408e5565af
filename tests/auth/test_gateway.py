"""The gateway for other modules, and the events they hear."""

from collections.abc import Awaitable, Callable

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import UserCreated, UserDeleted, UserDTO, auth_gateway, get_gateway
from app.auth.gateway import AuthGateway as GatewayClass
from app.core.db import FilterParam, ListParams, SortParam, session_scope, utcnow
from app.core.db.jobs import Job
from app.core.db.list_params import Lookup, SortOrder
from app.core.deps import listener
from app.core.services.events import ListenedEvent
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, login_user

Drain = Callable[[], Awaitable[int]]

_heard: list[int] = []


@listener(UserDeleted)
async def hear(event: ListenedEvent[UserDeleted]) -> None:
    """A listener as another module has it."""
    _heard.append(event.data.user_id)


@pytest.fixture
def heard() -> list[int]:
    """The users whose deletion the listener heard of during the test."""
    _heard.clear()
    return _heard


class TestGateway:
    async def test_a_user_as_dto(self, db: AsyncSession) -> None:
        user = await UserFactory.create(is_superuser=True)

        found = await (await get_gateway()).get_user(user.id)

        assert isinstance(found, UserDTO)
        assert (found.id, found.email, found.is_superuser) == (user.id, user.email, True)
        assert "is_superuser" not in found.model_dump()

    async def test_deleted_and_absent_users_are_none(self, db: AsyncSession) -> None:
        gone = await UserFactory.create(deleted_at=utcnow())
        gateway = await get_gateway()

        assert await gateway.get_user(gone.id) is None
        assert await gateway.get_user(gone.id + 1000) is None

    async def test_several(self, db: AsyncSession) -> None:
        users = await UserFactory.create_batch(3)
        gone = await UserFactory.create(deleted_at=utcnow())
        ids = [users[2].id, users[0].id, gone.id, users[0].id]

        found = await (await get_gateway()).get_users(ids)

        assert [user.id for user in found] == [users[0].id, users[2].id]
        assert await (await get_gateway()).get_users([]) == []

    async def test_a_page(self, db: AsyncSession) -> None:
        users = await UserFactory.create_batch(3)
        await UserFactory.create(deleted_at=utcnow())
        params = ListParams(
            sort=(SortParam(field="id", order=SortOrder.DESC),),
            filters=(FilterParam(field="id", value=tuple(user.id for user in users)),),
            per_page=2,
        )

        page = await (await get_gateway()).get_user_list(params)

        assert [type(user) for user in page.items] == [UserDTO, UserDTO]
        assert [user.id for user in page.items] == [users[2].id, users[1].id]
        assert (page.total, page.page, page.per_page) == (3, 1, 2)

    async def test_a_list_cannot_ask_for_what_a_dto_does_not_show(self, db: AsyncSession) -> None:
        params = ListParams(filters=(FilterParam(field="password_hash", value="$argon2%", lookup=Lookup.ILIKE),))

        with pytest.raises(ValueError, match="not a field of a UserDTO: password_hash"):
            await (await get_gateway()).get_user_list(params)

    async def test_ids_for_a_list_are_deprecated(self, db: AsyncSession) -> None:
        user = await UserFactory.create()
        with pytest.warns(DeprecationWarning, match="get_gateway"):
            gateway = await auth_gateway()
        assert isinstance(gateway, GatewayClass)

        with pytest.warns(DeprecationWarning, match="get_users"):
            found = await gateway.get_user_list([user.id])

        assert [each.id for each in found] == [user.id]

    async def test_it_reads_through_the_callers_unit_of_work(self, db: AsyncSession) -> None:
        """Rows that the caller has written and not committed are seen."""
        user = await UserFactory.create()
        gateway = await get_gateway()

        async with session_scope() as unit:
            row = await unit.get_one(type(user), user.id)
            row.username = "renamed"
            await unit.flush()
            found = await gateway.get_user(user.id)
            await unit.rollback()

        assert found is not None
        assert found.username == "renamed"


class TestEvents:
    async def test_names(self) -> None:
        assert UserCreated.__event_name__ == "user_created"
        assert UserDeleted.__event_name__ == "user_deleted"

    async def test_a_deletion_is_told(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, heard: list[int]
    ) -> None:
        user = await UserFactory.create()
        await login_user(client, user)

        await client.request("DELETE", "/api/v1/profile", json={"current_password": PASSWORD})

        assert heard == []
        await drain()
        assert heard == [user.id]

    async def test_a_refused_registration_is_not_told(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        await UserFactory.create(username="ann")

        answer = await client.post(
            "/api/v1/auth/register", json={"email": "a@example.com", "username": "ann", "password": PASSWORD}
        )

        assert answer.status_code == 409
        assert (await db.scalars(select(Job))).all() == []
