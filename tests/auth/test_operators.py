"""`kit users` and `kit roles` on accounts that exist, called in this process."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import LoggedOutEverywhere, RoleChanged, RoleGranted, RoleRevoked, UserStatusChanged
from app.auth.cli import roles, users
from app.auth.exceptions import (
    LastSuperuser,
    RoleInUse,
    RoleNotFound,
    RoleProtected,
    UnknownPermission,
    UserNotFound,
)
from app.auth.models import User
from tests.factories.user import UserFactory
from tests.utils import CapturedMail, PublishedEvents, login_user

Said = Callable[[], Any]
Drain = Callable[[], Awaitable[int]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """What was printed since the last look, read as JSON."""
    return lambda: json.loads(capsys.readouterr().out)


@pytest.fixture
async def ann(db: AsyncSession) -> User:
    return await UserFactory.create(username="ann", email="ann@example.com")


class TestGrants:
    async def test_a_role_is_granted_and_revoked(
        self, ann: User, said: Said, published_events: PublishedEvents, client: httpx.AsyncClient
    ) -> None:
        await roles.create("reader", permission=["users:read"], as_json=True)
        assert said()["permissions"] == ["users:read"]
        await login_user(client, ann)
        for change, status, held in ((users.grant, 200, ["member", "reader"]), (users.revoke, 403, ["member"])):
            for account in ("ann", "ann@example.com", str(ann.id)):
                await change(account, "reader", as_json=True)
                shown = said()
                assert (shown["id"], shown["status"], shown["roles"]) == (ann.id, "active", held)
            assert (await client.get("/api/v1/users")).status_code == status
        events = [*published_events.of(RoleGranted), *published_events.of(RoleRevoked)]
        about = {"user_id": ann.id, "actor_id": None, "role": "reader"}
        assert [event.model_dump(exclude={"origin"}) for event in events] == [about, about]

    async def test_an_administrator_is_told(
        self, ann: User, captured_mail: CapturedMail, drain: Drain, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await users.grant("ann", "admin")
        await drain()
        assert len(captured_mail.to(ann.email)) == 1
        assert capsys.readouterr().out == f"ann (ann@example.com), id {ann.id}: active; roles: admin, member\n"

    async def test_the_last_administrator_stays(self, db: AsyncSession) -> None:
        await UserFactory.create(username="root", is_superuser=True)
        for refused in (users.revoke("root", "admin"), users.disable("root")):
            with pytest.raises(LastSuperuser):
                await refused

    async def test_the_absent(self, ann: User) -> None:
        with pytest.raises(UserNotFound):
            await users.grant("nobody", "member")
        with pytest.raises(RoleNotFound):
            await users.grant("ann", "nobody")


class TestAccounts:
    async def test_one_is_disabled_and_enabled(
        self, ann: User, client: httpx.AsyncClient, said: Said, published_events: PublishedEvents
    ) -> None:
        await login_user(client, ann)
        await users.disable("ann", as_json=True)
        assert said()["status"] == "disabled"
        assert (await client.get("/api/v1/profile")).status_code == 401
        await users.enable("ann", as_json=True)
        assert said()["status"] == "active"
        assert (await client.get("/api/v1/profile")).status_code == 401  # that session has ended
        await login_user(client, ann)
        told = [(event.status_id, event.actor_id) for event in published_events.of(UserStatusChanged)]
        assert told == [(2, None), (1, None)]

    async def test_sessions_end_and_links_are_void(
        self, ann: User, db: AsyncSession, client: httpx.AsyncClient, said: Said, published_events: PublishedEvents
    ) -> None:
        stamp = ann.security_stamp
        for _ in range(2):
            await login_user(client, ann)
        await users.end_sessions("ann", as_json=True)
        assert said()["ended"] == 2
        assert (await client.get("/api/v1/profile")).status_code == 401
        await db.refresh(ann)
        assert ann.security_stamp == stamp + 1
        assert len(published_events.of(LoggedOutEverywhere)) == 1


class TestRoles:
    async def test_from_the_first_to_the_last(
        self, db: AsyncSession, said: Said, published_events: PublishedEvents
    ) -> None:
        await roles.create("editor", permission=["users:read"], description="Edits", as_json=True)
        assert (made := said())["description"] == "Edits"
        await roles.add("editor", ["users:write", "users:read"], as_json=True)
        assert said()["permissions"] == ["users:read", "users:write"]
        await roles.remove("editor", ["users:read"], as_json=True)
        assert said()["permissions"] == ["users:write"]
        await roles.show("editor", as_json=True)
        shown = said()
        assert (shown["id"], shown["permissions"]) == (made["id"], ["users:write"])
        await roles.list_roles(as_json=True)
        assert shown in said()
        await roles.permissions(as_json=True)
        assert {"users:read", "users:write"} < {one["name"] for one in said() if one["is_declared"]}
        await roles.delete("editor")
        with pytest.raises(RoleNotFound):
            await roles.show("editor")
        changes = [(event.change, event.actor_id) for event in published_events.of(RoleChanged)]
        assert changes == [("created", None), ("changed", None), ("changed", None), ("deleted", None)]

    async def test_for_people(self, db: AsyncSession, capsys: pytest.CaptureFixture[str]) -> None:
        await roles.create("editor", permission=["users:write", "users:read"])
        assert capsys.readouterr().out == "editor: users:read, users:write\n"
        await roles.list_roles()
        assert capsys.readouterr().out.splitlines()[1:] == [
            "editor: users:read, users:write",
            "member (Every new account): no permission",
        ]
        await roles.permissions()
        assert "users:read: See every account and its sessions" in capsys.readouterr().out.splitlines()

    async def test_what_is_refused(self, ann: User) -> None:
        with pytest.raises(UnknownPermission):
            await roles.create("editor", permission=["ghosts:see"])
        with pytest.raises(UnknownPermission):
            await roles.add("member", ["ghosts:see"])
        for refused in (roles.add("admin", ["users:read"]), roles.delete("member")):
            with pytest.raises(RoleProtected):
                await refused
        await roles.create("editor")
        await users.grant("ann", "editor")
        with pytest.raises(RoleInUse):
            await roles.delete("editor")
