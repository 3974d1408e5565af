"""Who may do what with accounts: the policies as plain calls. As dependencies of routes see test_users.py."""

import pytest
from fastapi import FastAPI, Request
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import UserDTO
from app.auth.config import AuthConfig
from app.auth.deps import account_service, credential_service, user_service
from app.auth.exceptions import ActionNotAllowed
from app.auth.policies.users import can_grant_superuser, can_list_users, can_read_user, can_write_users
from app.auth.schemas.user import UserCreate, UserUpdate
from app.auth.services.user import UserService
from app.core.deps import events_service, mail_service, queue_service
from tests.factories.user import UserFactory
from tests.utils import PASSWORD


@pytest.fixture
async def service(app: FastAPI, db: AsyncSession) -> UserService:
    """The service as a request gets it."""
    config = AuthConfig()
    events, queue = await events_service(), await queue_service()
    accounts = await account_service(Request({"type": "http", "app": app}), config, events, await mail_service())
    return await user_service(await credential_service(config, events), accounts, events, queue)


def dto(user_id: int, *, is_superuser: bool = False) -> UserDTO:
    values = {"id": user_id, "email": "a@example.com", "username": "abc", "status_id": 1, "is_verified": True}
    moments = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
    return UserDTO.model_validate({**values, **moments, "is_superuser": is_superuser})


class TestPolicies:
    async def test_a_superuser_is_an_admin(self) -> None:
        assert dto(1, is_superuser=True).is_admin
        assert not dto(2).is_admin
        assert "is_admin" not in dto(1, is_superuser=True).model_dump()

    async def test_a_refusal_may_say_why(self) -> None:
        assert ActionNotAllowed("Only owners may.").detail == "Only owners may."
        assert ActionNotAllowed().detail == "You are not allowed to do this."

    async def test_a_superuser_may_everything(self) -> None:
        admin = dto(1, is_superuser=True)

        await can_list_users(admin)
        await can_read_user(admin, 2)
        await can_write_users(admin)
        await can_grant_superuser(admin)

    async def test_others_may_read_themselves(self) -> None:
        await can_read_user(dto(2), 2)
        for question in (can_list_users(dto(2)), can_read_user(dto(2), 3), can_write_users(dto(2))):
            with pytest.raises(ActionNotAllowed):
                await question

    async def test_the_service_asks_before_it_makes_or_unmakes_a_superuser(
        self, db: AsyncSession, service: UserService
    ) -> None:
        """Whoever may write accounts, and is no superuser, must not become one that way."""
        clerk, admin = dto(2), await UserFactory.create(is_superuser=True)
        data = UserCreate(email="ann@example.com", username="ann", password=PASSWORD, is_superuser=True)
        with pytest.raises(ActionNotAllowed):
            await service.create(data, db=db, actor=clerk, may_grant=can_grant_superuser)
        with pytest.raises(ActionNotAllowed):
            await service.update(
                admin.id, UserUpdate(is_superuser=False), db=db, actor=clerk, may_grant=can_grant_superuser
            )

        renamed = await service.update(
            admin.id,
            UserUpdate(username="boss", is_superuser=True),
            db=db,
            actor=clerk,
            may_grant=can_grant_superuser,
        )
        assert renamed.username == "boss"
