"""Clients with a key."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from tests.api_keys.fixtures import AsKey
from tests.auth.fixtures import AsUser


class TestAsKey:
    async def test_the_scopes_count_and_no_others(self, db: AsyncSession, as_key: AsKey) -> None:
        robot = await as_key(scopes=["users:read"])

        assert (await robot.get("/api/v1/users")).status_code == 200
        assert (await robot.delete(f"/api/v1/users/{robot.user.id}")).status_code == 403
        assert (await (await as_key()).get("/api/v1/users")).status_code == 403

    async def test_it_may_be_somebodys(self, db: AsyncSession, as_user: AsUser, as_key: AsKey) -> None:
        ann = await as_user(permissions=["users:read"])
        robot = await as_key(ann.user, scopes=["users:read", "users:write"])

        assert (await robot.get("/api/v1/users/me")).json()["data"]["id"] == ann.user.id
        assert (await robot.delete(f"/api/v1/users/{ann.user.id}")).status_code == 403

    async def test_one_that_has_expired_is_refused(self, db: AsyncSession, as_key: AsKey) -> None:
        assert (await (await as_key(expired=True)).get("/api/v1/users/me")).status_code == 401

    async def test_what_no_module_declares_is_refused_here(self, db: AsyncSession, as_key: AsKey) -> None:
        with pytest.raises(ValueError, match="no module declares user:read"):
            await as_key(scopes=["user:read"])
