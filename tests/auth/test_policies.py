"""Policies of accounts as plain calls. As dependencies of routes they are in test_users.py."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import UserDTO
from app.auth.config import AuthConfig
from app.auth.deps import active_user, auth_services
from app.auth.exceptions import AccountNotActive, ActionNotAllowed, InvalidAccessToken
from app.auth.models import AuthSession, EndReason, User, UserStatus
from app.auth.policies import can_grant_superuser, can_list_users, can_read_user, can_write_users
from app.auth.repositories import SessionRepository
from app.auth.schemas.user import UserCreate, UserUpdate
from app.auth.services.user import Administrator, UserService
from app.core.api import ConfigurableRateLimiter
from app.core.deps import events_service, mail_service, queue_service
from tests.core.api.conftest import make_app
from tests.core.log.capture import captured_log
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, login_user


@pytest.fixture
async def service(app: FastAPI, db: AsyncSession) -> UserService:
    """The service as a request gets it."""
    config = AuthConfig()
    request = Request({"type": "http", "app": app, "headers": []})
    services = await auth_services(request, config, await events_service(), await mail_service(), await queue_service())
    return services.users


async def anything(user: UserDTO) -> None:
    """May the user do it? Yes."""


def dto(user_id: int, *, is_superuser: bool = False) -> UserDTO:
    values = {"id": user_id, "email": "a@example.com", "username": "abc", "status_id": 1, "is_verified": True}
    moments = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
    return UserDTO.model_validate({**values, **moments, "is_superuser": is_superuser})


router = APIRouter(prefix="/t")
limit = ConfigurableRateLimiter(times=1, seconds=60, name="refusals")


@router.get("/limited", dependencies=[Depends(active_user), Depends(limit)])
async def limited() -> None: ...


class TestLogLines:
    """ASVS 5.0 16.2.1, 16.3.2: who was refused, and for lack of what."""

    @pytest.fixture
    async def http(self, client: httpx.AsyncClient, user: User) -> AsyncIterator[httpx.AsyncClient]:
        await login_user(client, user)
        transport = httpx.ASGITransport(make_app(router, RATE_LIMITER_ENABLED=True))
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=client.headers) as http:
            yield http

    @pytest.fixture
    async def user(self, db: AsyncSession) -> User:
        return await UserFactory.create()

    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    async def test_a_403_names_the_caller_and_what_is_missing(
        self, http: httpx.AsyncClient, user: User, method: str
    ) -> None:
        with captured_log() as lines:
            answer = await http.request(method, "/api/v1/users/999999999")
        assert answer.status_code == 403
        assert "users:read" not in answer.text
        line = lines.one("request")
        assert (line["user"], line["missing"], line["route"]) == (
            f"user:{user.id}",
            "users:read",
            "/api/v1/users/{user_id}",
        )
        assert "999999999" not in str(line)

    async def test_a_429_names_the_caller(self, http: httpx.AsyncClient, user: User) -> None:
        with captured_log() as lines:
            answers = [await http.get("/t/limited") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert [(line["user"], line.get("code")) for line in lines.all("request")] == [
            (f"user:{user.id}", None),
            (f"user:{user.id}", "rate_limited"),
        ]

    async def test_a_401_names_nobody_who_is_not_verified(self, http: httpx.AsyncClient, user: User) -> None:
        http.headers["Authorization"] += "x"
        with captured_log() as lines:
            assert (await http.get("/api/v1/users/999999999")).status_code == 401
        line = lines.one("request")
        assert {"user", "missing"}.isdisjoint(line)


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

    async def test_the_service_asks_before_it_touches_a_superuser(
        self, db: AsyncSession, client: httpx.AsyncClient, service: UserService
    ) -> None:
        """Whoever may write accounts, and is no superuser, must not become one that way, nor take one over."""
        clerk, admin = await UserFactory.create(), await UserFactory.create(is_superuser=True)
        await login_user(client, clerk)
        session_id = (await db.scalars(select(AuthSession.id))).one()
        by = Administrator(clerk.id, session_id, may_write=anything, may_grant=can_grant_superuser)
        data = UserCreate(email="ann@example.com", username="ann", password=PASSWORD, is_superuser=True)
        for refused in (
            service.create(data, db=db, by=by),
            service.update(clerk.id, UserUpdate(is_superuser=True), db=db, by=by),
            service.update(admin.id, UserUpdate(email="clerk@example.com"), db=db, by=by),
            service.delete(admin.id, db=db, by=by),
        ):
            with pytest.raises(ActionNotAllowed):
                await refused

        renamed = await service.update(clerk.id, UserUpdate(username="scribe", is_superuser=False), db=db, by=by)
        assert renamed.username == "scribe"

    async def test_the_service_asks_when_the_change_takes_effect(
        self, db: AsyncSession, client: httpx.AsyncClient, service: UserService
    ) -> None:
        """Rights may end while a password is hashed, or while another request holds the row."""
        admin = await UserFactory.create(is_superuser=True)
        await login_user(client, admin)
        session_id = (await db.scalars(select(AuthSession.id))).one()
        by = Administrator(admin.id, session_id, may_write=can_write_users, may_grant=can_grant_superuser)
        data = UserCreate(email="ann@example.com", username="ann", password=PASSWORD, is_superuser=True)

        for ended, refusal in (
            ({"is_superuser": False}, ActionNotAllowed),
            ({"status_id": UserStatus.DISABLED}, AccountNotActive),
        ):
            admin.update(**ended)
            await db.commit()
            with pytest.raises(refusal):
                await service.create(data, db=db, by=by)
        await SessionRepository().revoke(db=db, user_id=admin.id, reason=EndReason.LOGOUT)
        with pytest.raises(InvalidAccessToken):
            await service.create(data, db=db, by=by)
