"""Policies of accounts as plain calls. As dependencies of routes they are in test_users.py."""

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, Security, WebSocket
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.models import AuditEvent
from app.auth import AccessRefused, UserDTO
from app.auth.config import AuthConfig
from app.auth.deps import active_user, auth_services
from app.auth.exceptions import AccountNotActive, ActionNotAllowed
from app.auth.models import AuthSession, PermissionRow, User, UserStatus
from app.auth.policies import (
    Policy,
    can_list_users,
    can_read_user,
    can_write_users,
    requires_permission,
    requires_role,
)
from app.auth.repositories import RoleRepository, SessionRepository, UserRepository
from app.auth.schemas.user import UserCreate, UserUpdate
from app.auth.services.accounts import Administrator
from app.auth.services.user import UserService
from app.core.api import ConfigurableRateLimiter
from app.core.db import Database
from app.core.deps import events_service, mail_service, queue_service
from app.core.exceptions import AuthenticationError
from app.core.identity import Permission, Principal
from app.core.runtime import runtime
from tests.core.api.asgi import WebSocketExchange
from tests.core.api.conftest import make_app
from tests.core.log.capture import captured_log
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, PublishedEvents, login_user

Drain = Callable[[], Awaitable[int]]


@pytest.fixture
async def service(app: FastAPI, db: AsyncSession) -> UserService:
    """The service as a request gets it."""
    config = AuthConfig()
    request = Request({"type": "http", "app": app, "headers": []})
    services = await auth_services(request, config, await events_service(), await mail_service(), await queue_service())
    return services.users


def dto(user_id: int, *, is_superuser: bool = False) -> UserDTO:
    values = {"id": user_id, "email": "a@example.com", "username": "abc", "status_id": 1, "is_verified": True}
    moments = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
    rights = {"roles": {"admin"}, "permissions": {"users:read", "users:write"}} if is_superuser else {}
    return UserDTO.model_validate({**values, **moments, **rights, "is_superuser": is_superuser})


router = APIRouter(prefix="/t")
limit = ConfigurableRateLimiter(times=1, seconds=60, name="refusals")


@router.get("/limited", dependencies=[Depends(active_user), Depends(limit)])
async def limited() -> None: ...


@router.websocket("/socket", dependencies=[Depends(can_write_users)])
async def socket(websocket: WebSocket) -> None: ...


unique = count(10**6)
"""Ids of users whom no other test has: refusals are counted for as long as the process lives."""


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


class TestRefusals:
    """A refusal by a policy is an event, stored although the request fails (ASVS 5.0 16.3.2)."""

    @pytest.fixture
    async def user(self, committed: Database, client: httpx.AsyncClient) -> User:
        user = await UserFactory.create(id=next(unique))
        await login_user(client, user)
        return user

    @pytest.mark.parametrize(
        ("method", "path", "permission", "route"),
        [
            ("GET", "/users/999999999", "users:read", "/api/v1/users/{user_id}"),
            ("DELETE", "/users/999999999", "users:write", "/api/v1/users/{user_id}"),
            ("POST", "/users", "users:write", "/api/v1/users"),
        ],
    )
    async def test_it_names_the_permission_and_the_template(
        self,
        client: httpx.AsyncClient,
        user: User,
        published_events: PublishedEvents,
        method: str,
        path: str,
        permission: str,
        route: str,
    ) -> None:
        body = {"email": "ann@example.com", "username": "ann", "password": PASSWORD}
        answer = await client.request(method, f"/api/v1{path}", json=body if method == "POST" else None)
        assert answer.status_code == 403
        (event,) = published_events.of(AccessRefused)
        assert (event.user_id, event.actor_id) == (user.id, user.id)
        assert (event.permission, event.route) == (permission, route)
        assert event.origin.request_id == answer.headers["X-Request-ID"]
        assert "999999999" not in event.model_dump_json()

    async def test_it_is_kept(self, client: httpx.AsyncClient, user: User, committed: Database, drain: Drain) -> None:
        await client.get("/api/v1/users")
        await drain()
        async with committed.session_scope(read_only=True) as db:
            (row,) = await db.scalars(select(AuditEvent).where(AuditEvent.kind == "access_refused"))
        assert (row.outcome, row.subject_id) == ("failure", user.id)
        assert row.details == {"permission": "users:read", "route": "/api/v1/users"}

    async def test_it_is_told_once_a_minute_for_each_permission(
        self, client: httpx.AsyncClient, user: User, published_events: PublishedEvents
    ) -> None:
        for number in range(5):
            for method, path in (("GET", "/users"), ("GET", f"/users/{10**9 + number}"), ("DELETE", "/users/1")):
                assert (await client.request(method, f"/api/v1{path}")).status_code == 403
        told = [event.permission for event in published_events.of(AccessRefused)]
        assert told == ["users:read", "users:write"]

    async def test_nobody_in_particular_floods_nothing(
        self, client: httpx.AsyncClient, user: User, published_events: PublishedEvents
    ) -> None:
        client.headers["Authorization"] = "Bearer nonsense"
        assert (await client.get("/api/v1/users")).status_code == 401
        assert published_events.of(AccessRefused) == []

    async def test_one_of_a_websocket_is_told_too(
        self, client: httpx.AsyncClient, user: User, published_events: PublishedEvents
    ) -> None:
        exchange = WebSocketExchange("/t/socket", client="192.0.2.7", texts=[])
        exchange.scope["headers"].append((b"authorization", client.headers["Authorization"].encode()))
        await exchange.run(make_app(router))
        assert exchange.received[0]["status"] == 403
        (event,) = published_events.of(AccessRefused)
        assert (event.permission, event.route) == ("users:write", "/t/socket")


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
        await requires_role("admin")(admin)

    async def test_others_may_read_themselves(self) -> None:
        await can_read_user(dto(2), 2)
        for question in (can_list_users(dto(2)), can_read_user(dto(2), 3), can_write_users(dto(2))):
            with pytest.raises(ActionNotAllowed):
                await question

    @pytest.mark.parametrize(
        "policy", [requires_permission("users:read"), requires_role("admin")], ids=["permission", "role"]
    )
    async def test_a_policy_is_a_decorator_too(
        self, policy: Policy, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        router = APIRouter()

        @router.get("/guarded/{number}")
        @policy
        async def read(number: int) -> int:
            return number

        @router.get("/plain/{number}")
        @policy
        def read_plainly(number: int) -> int:
            return number

        app = client._transport.app  # type: ignore[attr-defined]  # of httpx
        routes = list(app.router.routes)
        app.include_router(router)
        try:
            for is_superuser, status in ((True, 200), (False, 403)):
                await login_user(client, await UserFactory.create(is_superuser=is_superuser))
                for path in ("/guarded/3", "/plain/3"):
                    answer = await client.get(path)
                    assert answer.status_code == status
                    assert answer.json() == 3 or answer.json()["code"] == "action_not_allowed"
        finally:
            app.router.routes[:] = routes

    async def test_scopes_of_security_are_permissions(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        router = APIRouter()

        @router.get("/scoped")
        async def read(user: Annotated[UserDTO, Security(active_user, scopes=["users:read"])]) -> int:
            return user.id

        app = client._transport.app  # type: ignore[attr-defined]  # of httpx
        routes = list(app.router.routes)
        app.include_router(router)
        try:
            reader, member = await UserFactory.create(permissions=["users:read"]), await UserFactory.create()
            await login_user(client, reader)
            assert (await client.get("/scoped")).json() == reader.id
            await login_user(client, member)
            assert (await client.get("/scoped")).status_code == 403
        finally:
            app.router.routes[:] = routes


class TestPermissions:
    async def test_an_undeclared_permission_counts_for_nothing(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        user = await UserFactory.create(permissions=["users:read", "ghosts:see"])
        (found,) = await UserRepository().get_by_ids(db=db, ids=[user.id])
        assert found.permissions == {"users:read"}
        assert found.roles == {"member", f"of_user_{user.id}"}

    async def test_an_administrator_holds_what_is_declared(self, db: AsyncSession) -> None:
        user = await UserFactory.create(is_superuser=True)
        (found,) = await UserRepository().get_by_ids(db=db, ids=[user.id])
        assert found.permissions == runtime().permissions.keys() >= {"users:read", "users:write"}

    async def test_a_scope_narrows_a_session(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        """Even an administrator acts in no role then, and does not manage the account."""
        user = await UserFactory.create(is_superuser=True)
        await login_user(client, user)
        session = (await db.scalars(select(AuthSession))).one()
        session.scope = "users:read ghosts:see"
        await db.commit()

        assert (await client.get("/api/v1/users")).status_code == 200
        refused = await client.post("/api/v1/users", json={})
        assert (refused.status_code, refused.json()["code"]) == (403, "action_not_allowed")
        refused = await client.patch("/api/v1/profile", json={"username": "other"})
        assert (refused.status_code, refused.json()["code"]) == (403, "session_required")
        found = await UserRepository().principal(db=db, user_id=user.id, session_id=session.id)
        assert found is not None
        assert found.permissions == {"users:read"}
        assert not found.user.is_superuser
        assert not found.user.is_admin
        assert (await client.post("/api/v1/auth/logout")).status_code == 204

    async def test_the_catalogue_tells_what_no_module_declares(self, db: AsyncSession) -> None:
        roles, ghost = RoleRepository(), Permission("ghosts:see", "See ghosts")
        await UserFactory.create(permissions=["ghosts:see"])

        assert await roles.declare(db=db, permissions=[ghost]) == []
        assert await roles.declare(db=db, permissions=[Permission("users:read", "Read")]) == ["ghosts:see"]
        rows = {row.name: (row.description, row.is_declared) for row in await db.scalars(select(PermissionRow))}
        assert rows == {"ghosts:see": ("See ghosts", False), "users:read": ("Read", True)}

    @pytest.mark.parametrize("name", ["users", "Users:read", "users:read all", "users:*", f"{'u' * 60}:read"])
    async def test_a_name_that_no_scope_can_hold_is_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="no permission"):
            Permission(name, "")


class TestAdministration:
    """Rights are judged when a change takes effect, and nobody reaches above their own."""

    @staticmethod
    async def administrator(db: AsyncSession, client: httpx.AsyncClient, user: User) -> Administrator:
        await login_user(client, user)
        session_id = (await db.scalars(select(AuthSession.id).where(AuthSession.user_id == user.id))).one()

        async def again(db: AsyncSession) -> Principal | None:
            return await UserRepository().principal(db=db, user_id=user.id, session_id=session_id)

        principal = await again(db)
        assert principal
        return Administrator(principal, again, can_write_users)

    async def test_nobody_grants_or_changes_what_they_do_not_hold(
        self, db: AsyncSession, client: httpx.AsyncClient, service: UserService
    ) -> None:
        clerk = await UserFactory.create(permissions=["users:write"])
        admin = await UserFactory.create(is_superuser=True)
        reader = await UserFactory.create(permissions=["users:read"])
        by = await self.administrator(db, client, clerk)
        data = UserCreate(email="ann@example.com", username="ann", password=PASSWORD, is_superuser=True)
        for refused in (
            service.create(data, db=db, by=by),
            service.update(clerk.id, UserUpdate(is_superuser=True), db=db, by=by),
            service.update(admin.id, UserUpdate(email="clerk@example.com"), db=db, by=by),
            service.update(reader.id, UserUpdate(email="clerk@example.com"), db=db, by=by),
            service.delete(admin.id, db=db, by=by),
        ):
            with pytest.raises(ActionNotAllowed):
                await refused

        renamed = await service.update(clerk.id, UserUpdate(username="scribe", is_superuser=False), db=db, by=by)
        assert renamed.username == "scribe"

    async def test_rights_may_end_while_a_password_is_hashed(
        self, db: AsyncSession, client: httpx.AsyncClient, service: UserService
    ) -> None:
        admin = await UserFactory.create(is_superuser=True)
        by = await self.administrator(db, client, admin)
        data = UserCreate(email="ann@example.com", username="ann", password=PASSWORD, is_superuser=True)

        await UserRepository().change(db=db, user=admin, is_superuser=False)
        with pytest.raises(ActionNotAllowed):
            await service.create(data, db=db, by=by)
        admin.update(status_id=UserStatus.DISABLED)
        await db.commit()
        with pytest.raises(AccountNotActive):
            await service.create(data, db=db, by=by)
        await SessionRepository().revoke(db=db, user_id=admin.id, reason="logout")
        with pytest.raises(AuthenticationError):
            await service.create(data, db=db, by=by)
