"""Accounts of machines, as the gateway makes them: nobody logs in to one, and no mail leaves for it."""

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import UserDTO, get_gateway
from app.auth.exceptions import UsernameTaken
from app.auth.models import User
from app.core.db import session_scope
from tests.auth.takeover import Drain
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail, login_user


@pytest.fixture
async def machine(db: AsyncSession) -> UserDTO:
    return await (await get_gateway()).create_service_account("Importer")


async def test_it_is_known_as_one(db: AsyncSession, machine: UserDTO) -> None:
    assert (machine.username, machine.is_service_account, machine.roles) == ("Importer", True, frozenset())
    assert not UserDTO.model_validate(await UserFactory.create()).is_service_account
    assert await (await get_gateway()).get_user(machine.id) == machine


async def test_a_name_is_taken_once(db: AsyncSession, machine: UserDTO) -> None:
    for name in ("importer", (await UserFactory.create()).username):
        with pytest.raises(UsernameTaken):
            await (await get_gateway()).create_service_account(name)


async def test_it_is_made_in_the_unit_of_the_caller(db: AsyncSession) -> None:
    async def make_and_fail() -> None:
        async with session_scope():
            await (await get_gateway()).create_service_account("importer")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await make_and_fail()
    assert await db.scalar(select(User.id).where(User.username == "importer")) is None


async def test_no_password_opens_it(db: AsyncSession, client: httpx.AsyncClient, machine: UserDTO) -> None:
    for name in (machine.username, machine.email):
        for password in (" ", PASSWORD, "None"):
            answer = await client.post("/api/v1/auth/login", data={"username": name, "password": password})
            assert (answer.status_code, answer.json()["code"]) == (401, "invalid_grant")


async def test_nobody_registers_or_restores_such_an_address(
    db: AsyncSession, client: httpx.AsyncClient, machine: UserDTO
) -> None:
    account = {"email": "me@service.invalid", "username": "somebody", "password": PASSWORD}
    assert (await client.post("/api/v1/auth/register", json=account)).status_code == 422
    answer = await client.post("/api/v1/auth/restore-password", json={"email": machine.email})
    assert answer.status_code == 422


async def test_no_mail_leaves_for_it(
    db: AsyncSession, client: httpx.AsyncClient, machine: UserDTO, drain: Drain, captured_mail: CapturedMail
) -> None:
    await login_user(client, await UserFactory.create(is_superuser=True))
    changes = {"is_superuser": True, "username": "exporter"}
    assert (await client.patch(f"/api/v1/users/{machine.id}", json=changes)).status_code == 200
    await drain()
    assert not [address for address in captured_mail.recipients() if address.endswith("service.invalid")]


async def test_it_is_not_the_administrator_that_must_stay(
    db: AsyncSession, client: httpx.AsyncClient, machine: UserDTO
) -> None:
    admin = await UserFactory.create(is_superuser=True)
    await login_user(client, admin)
    assert (await client.patch(f"/api/v1/users/{machine.id}", json={"is_superuser": True})).status_code == 200
    refused = await client.patch(f"/api/v1/users/{admin.id}", json={"is_superuser": False})
    assert (refused.status_code, refused.json()["code"]) == (409, "last_superuser")
