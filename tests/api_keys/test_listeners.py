"""What becomes of keys with their owner's account."""

from typing import Any

import httpx
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.api_keys import ApiKeyRevoked
from app.api_keys.models import AccessToken, ApiKey
from app.api_keys.personal_data import personal_data
from app.auth.models import User
from app.auth.services.accounts import reset_password
from app.core.db import session_scope
from tests.api_keys.conftest import KEYS, TOKEN, Make, Sender
from tests.utils import PASSWORD, PublishedEvents, login_user

ME = "/api/v1/users/me"


class TestPasswordReset:
    async def test_keys_that_a_thief_may_have_made_end(
        self, db: AsyncSession, owner: User, make: Make, sender: Sender, drain: Any, published_events: PublishedEvents
    ) -> None:
        ended, live = await make(), await make()
        http = await sender(x_api_key=live["key"])
        assert (await http.get(ME)).status_code == 200
        await reset_password(owner.email, SecretStr("another long password"))
        await drain()
        assert (await http.get(ME)).status_code == 401
        told = published_events.of(ApiKeyRevoked)
        assert {(one.user_id, one.actor_id, one.api_key_id) for one in told} == {
            (owner.id, None, key["id"]) for key in (ended, live)
        }

    async def test_a_change_of_the_password_leaves_them(
        self, db: AsyncSession, owner: User, make: Make, sender: Sender, drain: Any, client: httpx.AsyncClient
    ) -> None:
        http = await sender(x_api_key=(await make())["key"])
        body = {"current_password": PASSWORD, "new_password": "another long password"}
        assert (await client.post("/api/v1/profile/password", json=body)).status_code == 204
        await drain()
        assert (await http.get(ME)).status_code == 200


class TestPersonalData:
    async def test_the_export_has_the_keys_without_a_hash(
        self, db: AsyncSession, owner: User, make: Make, client: httpx.AsyncClient
    ) -> None:
        key = await make(name="mine")
        rows = [row async for row in personal_data.export(owner.id, db=db)]
        ((kind, values),) = rows
        assert (kind, values["id"], values["name"]) == ("key", key["id"], "mine")
        assert not [name for name in values if "hash" in name]

    async def test_erasure_deletes_them_and_their_tokens(
        self, db: AsyncSession, owner: User, make: Make, client: httpx.AsyncClient, sender: Sender
    ) -> None:
        key = await make()
        form = {"grant_type": "client_credentials", "client_id": key["prefix"], "client_secret": key["key"]}
        assert (await (await sender()).post(TOKEN, data=form)).status_code == 200
        async with session_scope() as unit:
            await personal_data.erase(owner.id, db=unit)
        for model in (ApiKey, AccessToken):
            assert list(await db.scalars(select(model))) == []
        await login_user(client, owner)
        assert (await client.get(KEYS)).json()["data"] == []
