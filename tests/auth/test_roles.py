"""Roles and their grants through the API: nobody reaches above their own, and the last administrator stays."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import RoleChanged, RoleGranted, RoleRevoked, SuperuserChanged, requires_role
from app.auth.models import AuthSession, PermissionRow, Role, RolePermission, User, UserRole, UserStatus
from app.auth.repositories import RoleRepository, UserRepository
from app.core.db import Database
from tests.core.api.conftest import make_app
from tests.factories.user import UserFactory
from tests.utils import CapturedMail, PublishedEvents, login_user

ROLES = "/api/v1/roles"
CLERK = ["roles:read", "roles:write", "users:read"]


@pytest.fixture
async def admin(db: AsyncSession, client: httpx.AsyncClient) -> User:
    """An administrator, logged in."""
    user = await UserFactory.create(is_superuser=True)
    await login_user(client, user)
    return user


@pytest.fixture
async def clerk(db: AsyncSession, client: httpx.AsyncClient) -> User:
    """Somebody who may write roles and does not hold everything, logged in."""
    user = await UserFactory.create(permissions=CLERK)
    await login_user(client, user)
    return user


async def new_role(name: str, *permissions: str, db: AsyncSession) -> Role:
    """A role that nobody has."""
    role = await RoleRepository().create(db=db, data={"name": name, "description": ""})
    await RoleRepository().set_permissions(db=db, role_id=role.id, permissions=permissions)
    await db.commit()
    return role


async def role_id(name: str, db: AsyncSession) -> int:
    return (await db.scalars(select(Role.id).where(Role.name == name))).one()


def grant_of(user: User, name: str) -> str:
    return f"/api/v1/users/{user.id}/roles/{name}"


async def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


class TestRead:
    async def test_all_by_name_and_the_administrators_hold_everything(
        self, admin: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        await new_role("editor", "users:write", "users:read", db=db)
        editor_id = await role_id("editor", db)
        found = {role["name"]: role for role in (await client.get(ROLES)).json()["data"]}
        assert list(found) == ["admin", "editor", "member"]
        assert found["editor"]["permissions"] == ["users:read", "users:write"]
        assert found["member"]["permissions"] == []
        catalogue = (await client.get("/api/v1/permissions")).json()["data"]
        assert found["admin"]["permissions"] == [one["name"] for one in catalogue]
        assert (await client.get(f"{ROLES}/{editor_id}")).json()["data"] == found["editor"]
        assert await code(await client.get(f"{ROLES}/999999")) == (404, "role_not_found")

    async def test_the_catalogue_tells_which_permissions_no_module_declares(
        self, admin: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        db.add(PermissionRow(name="ghosts:see", description="See ghosts", is_declared=False))
        await db.commit()
        found = {one.pop("name"): one for one in (await client.get("/api/v1/permissions")).json()["data"]}
        assert found["ghosts:see"] == {"description": "See ghosts", "is_declared": False}
        assert found["users:read"]["is_declared"]
        assert found["users:read"]["description"]

    async def test_everybody_reads_their_own_roles_and_nobody_elses(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        user, other = await UserFactory.create_batch(2)
        await login_user(client, user)
        (grant,) = (await client.get(f"/api/v1/users/{user.id}/roles")).json()["data"]
        assert (grant["name"], grant["granted_by_id"]) == ("member", None)
        for path in (f"/api/v1/users/{other.id}/roles", ROLES, f"{ROLES}/1", "/api/v1/permissions"):
            assert await code(await client.get(path)) == (403, "action_not_allowed")


class TestCreate:
    async def test_it_is_stored_and_told(
        self, admin: User, client: httpx.AsyncClient, published_events: PublishedEvents
    ) -> None:
        body = {"name": "editor", "description": "Edits", "permissions": ["users:write", "users:read", "users:read"]}
        answer = await client.post(ROLES, json=body)
        assert answer.status_code == 201
        made = answer.json()["data"]
        assert made["permissions"] == ["users:read", "users:write"]
        assert (await client.get(f"{ROLES}/{made['id']}")).json()["data"] == made
        (event,) = published_events.of(RoleChanged)
        assert (event.role, event.change, event.actor_id) == ("editor", "created", admin.id)
        assert event.permissions == ("users:read", "users:write")

    async def test_a_permission_that_no_module_declares_is_refused_and_not_repeated(
        self, admin: User, client: httpx.AsyncClient
    ) -> None:
        answer = await client.post(ROLES, json={"name": "editor", "permissions": ["users:read", "ghosts:see"]})
        assert await code(answer) == (422, "unknown_permission")
        (fault,) = answer.json()["errors"]
        assert (fault["loc"], fault["type"]) == (["body", "permissions", 1], "unknown_permission")
        assert "ghosts" not in answer.text

    @pytest.mark.parametrize("name", ["", "Editor", "two words", "7up", "e" * 33, "éditeur", "editor\n", None])
    async def test_names_are_words(self, admin: User, client: httpx.AsyncClient, name: str | None) -> None:
        assert (await client.post(ROLES, json={"name": name})).status_code == 422

    async def test_a_name_is_taken_once(self, admin: User, client: httpx.AsyncClient) -> None:
        assert await code(await client.post(ROLES, json={"name": "member"})) == (409, "already_exists")

    async def test_nobody_gives_a_role_what_they_do_not_hold(self, clerk: User, client: httpx.AsyncClient) -> None:
        assert (await client.post(ROLES, json={"name": "reader", "permissions": ["users:read"]})).status_code == 201
        answer = await client.post(ROLES, json={"name": "writer", "permissions": ["users:read", "users:write"]})
        assert await code(answer) == (403, "action_not_allowed")
        assert len((await client.get(ROLES)).json()["data"]) == 4


class TestUpdate:
    async def test_it_counts_at_the_next_request_of_everybody_who_has_it(
        self, admin: User, client: httpx.AsyncClient, db: AsyncSession, published_events: PublishedEvents
    ) -> None:
        user = await UserFactory.create()
        await login_user(client, user)
        bearer = dict(client.headers)
        await login_user(client, admin)
        url = f"{ROLES}/{await role_id('member', db)}"
        for permissions, status in ((["users:read"], 200), ([], 403)):
            answer = await client.patch(url, json={"permissions": permissions})
            assert answer.json()["data"]["permissions"] == permissions
            assert (await client.get("/api/v1/users", headers=bearer)).status_code == status
        assert [event.permissions for event in published_events.of(RoleChanged)] == [("users:read",), ()]

    async def test_name_and_text(self, admin: User, client: httpx.AsyncClient, db: AsyncSession) -> None:
        role = await new_role("editor", "users:read", db=db)
        answer = await client.patch(f"{ROLES}/{role.id}", json={"name": "author", "description": "Writes"})
        changed = answer.json()["data"]
        assert (changed["name"], changed["description"]) == ("author", "Writes")
        assert changed["permissions"] == ["users:read"]
        assert await code(await client.patch(f"{ROLES}/{role.id}", json={"name": "member"})) == (409, "already_exists")

    async def test_what_is_seeded_is_protected(self, admin: User, client: httpx.AsyncClient, db: AsyncSession) -> None:
        for name, body in (
            ("admin", {"name": "boss"}),
            ("admin", {"permissions": []}),
            ("admin", {"description": "x"}),
            ("member", {"name": "user"}),
        ):
            answer = await client.patch(f"{ROLES}/{await role_id(name, db)}", json=body)
            assert await code(answer) == (409, "role_protected")

    async def test_a_permission_that_is_gone_can_stay_and_can_go(
        self, clerk: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        role = await new_role("editor", "ghosts:see", db=db)
        for permissions, status in ((["ghosts:see", "users:read"], 200), (["users:read"], 200), (["ghosts:see"], 422)):
            answer = await client.patch(f"{ROLES}/{role.id}", json={"permissions": permissions})
            assert answer.status_code == status

    @pytest.mark.parametrize("permissions", [["users:read", "users:write"], ["users:read"], []], ids=str)
    async def test_nobody_changes_a_role_that_holds_more_than_they_do(
        self, clerk: User, client: httpx.AsyncClient, db: AsyncSession, permissions: list[str]
    ) -> None:
        role = await new_role("writer", "users:read", "users:write", db=db)
        answer = await client.patch(f"{ROLES}/{role.id}", json={"permissions": permissions})
        assert await code(answer) == (403, "action_not_allowed")

    async def test_nobody_widens_a_role_to_what_they_do_not_hold(
        self, clerk: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        """Their own role among them, and `member`, which they have too."""
        for name in (f"of_user_{clerk.id}", "member"):
            body = {"permissions": [*CLERK, "users:write"]}
            answer = await client.patch(f"{ROLES}/{await role_id(name, db)}", json=body)
            assert await code(answer) == (403, "action_not_allowed")
        assert (await client.post("/api/v1/users", json={})).status_code == 403


class TestDelete:
    async def test_it_is_gone(
        self, clerk: User, client: httpx.AsyncClient, db: AsyncSession, published_events: PublishedEvents
    ) -> None:
        role = await new_role("reader", "users:read", db=db)
        assert (await client.delete(f"{ROLES}/{role.id}")).status_code == 204
        assert await code(await client.delete(f"{ROLES}/{role.id}")) == (404, "role_not_found")
        assert [event.change for event in published_events.of(RoleChanged)] == ["deleted"]
        assert (await db.scalars(select(RolePermission).where(RolePermission.role_id == role.id))).all() == []

    async def test_not_while_anybody_has_it(self, admin: User, client: httpx.AsyncClient, db: AsyncSession) -> None:
        user = await UserFactory.create(permissions=["users:read"])
        url = f"{ROLES}/{await role_id(f'of_user_{user.id}', db)}"
        assert await code(await client.delete(url)) == (409, "role_in_use")

    @pytest.mark.parametrize("name", ["admin", "member"])
    async def test_what_is_seeded_stays(
        self, admin: User, client: httpx.AsyncClient, db: AsyncSession, name: str
    ) -> None:
        assert await code(await client.delete(f"{ROLES}/{await role_id(name, db)}")) == (409, "role_protected")

    async def test_nobody_deletes_a_role_that_holds_more_than_they_do(
        self, clerk: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        role = await new_role("writer", "users:write", db=db)
        assert (await client.delete(f"{ROLES}/{role.id}")).status_code == 403


class TestGrant:
    async def test_it_counts_at_the_next_request(
        self, admin: User, client: httpx.AsyncClient, db: AsyncSession, published_events: PublishedEvents
    ) -> None:
        await new_role("reader", "users:read", db=db)
        user = await UserFactory.create()
        await login_user(client, user)
        bearer = dict(client.headers)
        assert (await client.get("/api/v1/users", headers=bearer)).status_code == 403
        await login_user(client, admin)
        for _ in range(2):
            answer = await client.put(grant_of(user, "reader"))
            assert (answer.status_code, answer.content) == (204, b"")
        assert (await client.get("/api/v1/users", headers=bearer)).status_code == 200
        grants = (await client.get(f"/api/v1/users/{user.id}/roles")).json()["data"]
        assert [(one["name"], one["granted_by_id"]) for one in grants] == [("member", None), ("reader", admin.id)]
        (event,) = published_events.of(RoleGranted)
        assert (event.user_id, event.actor_id, event.role) == (user.id, admin.id, "reader")

    async def test_the_role_admin(
        self,
        admin: User,
        client: httpx.AsyncClient,
        db: AsyncSession,
        published_events: PublishedEvents,
        captured_mail: CapturedMail,
        drain: Any,
    ) -> None:
        """Its holder is told, and processes of the version before read the column."""
        user = await UserFactory.create()
        assert (await client.put(grant_of(user, "admin"))).status_code == 204
        await drain()
        await db.refresh(user)
        assert user.is_superuser
        assert [event.role for event in published_events.of(RoleGranted)] == ["admin"]
        assert [event.is_superuser for event in published_events.of(SuperuserChanged)] == [True]
        assert len(captured_mail.to(user.email)) == 1
        grants = (await client.get(f"/api/v1/users/{user.id}/roles")).json()["data"]
        assert {one["name"]: one["granted_by_id"] for one in grants}["admin"] == admin.id

    async def test_the_absent(self, admin: User, client: httpx.AsyncClient) -> None:
        assert await code(await client.put(grant_of(admin, "nobody"))) == (404, "role_not_found")
        assert await code(await client.put("/api/v1/users/999999/roles/member")) == (404, "user_not_found")
        assert (await client.put(grant_of(admin, "NoName"))).status_code == 422

    async def test_nobody_grants_what_they_do_not_hold(
        self, clerk: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        await new_role("reader", "users:read", db=db)
        await new_role("writer", "users:read", "users:write", db=db)
        user = await UserFactory.create()
        assert (await client.put(grant_of(user, "reader"))).status_code == 204
        for target in (user, clerk):
            for name in ("writer", "admin"):
                assert await code(await client.put(grant_of(target, name))) == (403, "action_not_allowed")

    async def test_nobody_grants_what_will_count_once_it_is_declared(
        self, clerk: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        await new_role("seller", "orders:write", db=db)
        assert await code(await client.put(grant_of(clerk, "seller"))) == (403, "action_not_allowed")

    async def test_nobody_gets_a_role_that_code_asks_for_from_those_who_do_not_have_it(
        self, clerk: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        role, other = await new_role("inspector", db=db), await new_role("nothing", db=db)
        assert (await client.put(grant_of(clerk, "nothing"))).status_code == 204
        requires_role("inspector")
        requires_role("taster")
        assert await code(await client.put(grant_of(clerk, "inspector"))) == (403, "action_not_allowed")
        assert await code(await client.post(ROLES, json={"name": "taster"})) == (403, "action_not_allowed")
        for of, name in ((other, "taster"), (role, "harmless")):
            renamed = await client.patch(f"{ROLES}/{of.id}", json={"name": name})
            assert await code(renamed) == (403, "action_not_allowed")

    async def test_nobody_changes_an_account_above_their_own(
        self, clerk: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        await new_role("reader", "users:read", db=db)
        above = await UserFactory.create(permissions=["users:write"])
        admin = await UserFactory.create(is_superuser=True)
        for user in (above, admin):
            for method in ("PUT", "DELETE"):
                for name in ("reader", "member"):
                    answer = await client.request(method, grant_of(user, name))
                    assert await code(answer) == (403, "action_not_allowed")

    async def test_all_permissions_do_not_make_administrators(
        self, db: AsyncSession, client: httpx.AsyncClient, admin: User
    ) -> None:
        """The role holds what will be declared, too; so it takes the role."""
        everything = (await client.get(f"{ROLES}/{await role_id('admin', db)}")).json()["data"]["permissions"]
        almost = await UserFactory.create(permissions=everything)
        await login_user(client, almost)
        assert await code(await client.put(grant_of(almost, "admin"))) == (403, "action_not_allowed")
        for method, url, body in (
            ("DELETE", grant_of(admin, "member"), None),
            ("PATCH", f"/api/v1/users/{admin.id}", {"email": "mine@example.com"}),
            ("PATCH", f"/api/v1/users/{almost.id}", {"is_superuser": True}),
        ):
            assert await code(await client.request(method, url, json=body)) == (403, "action_not_allowed")

    async def test_a_narrowed_token_grants_nothing_beyond_it(
        self, admin: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        await new_role("reader", "users:read", db=db)
        await new_role("auditor", "audit:read", db=db)
        session = (await db.scalars(select(AuthSession).where(AuthSession.user_id == admin.id))).one()
        session.scope = "roles:write users:read"
        await db.commit()
        user = await UserFactory.create()
        for name, status in (("reader", 204), ("auditor", 403), ("admin", 403)):
            assert (await client.put(grant_of(user, name))).status_code == status
        assert (await client.put(grant_of(admin, "reader"))).status_code == 403

    async def test_it_takes_the_permission(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create(permissions=["roles:read", "users:read", "users:write"])
        await login_user(client, user)
        for method in ("PUT", "DELETE"):
            assert (await client.request(method, grant_of(user, "member"))).status_code == 403
        assert (await client.post(ROLES, json={"name": "editor"})).status_code == 403


class TestRevoke:
    async def test_it_counts_at_the_next_request_and_voids_links(
        self, admin: User, client: httpx.AsyncClient, db: AsyncSession, published_events: PublishedEvents
    ) -> None:
        user = await UserFactory.create(permissions=["users:read"])
        await login_user(client, user)
        bearer, stamp, name = dict(client.headers), user.security_stamp, f"of_user_{user.id}"
        assert (await client.get("/api/v1/users", headers=bearer)).status_code == 200
        await login_user(client, admin)
        for _ in range(2):
            assert (await client.delete(grant_of(user, name))).status_code == 204
        assert (await client.get("/api/v1/users", headers=bearer)).status_code == 403
        (event,) = published_events.of(RoleRevoked)
        assert (event.user_id, event.actor_id, event.role) == (user.id, admin.id, name)
        await db.refresh(user)
        assert user.security_stamp == stamp + 1

    async def test_the_role_admin(
        self, admin: User, client: httpx.AsyncClient, db: AsyncSession, published_events: PublishedEvents
    ) -> None:
        other = await UserFactory.create(is_superuser=True)
        assert (await client.delete(grant_of(other, "admin"))).status_code == 204
        await db.refresh(other)
        assert not other.is_superuser
        assert [event.role for event in published_events.of(RoleRevoked)] == ["admin"]
        assert [event.is_superuser for event in published_events.of(SuperuserChanged)] == [False]

    async def test_the_last_administrator_stays(self, admin: User, client: httpx.AsyncClient) -> None:
        await UserFactory.create(is_superuser=True, status_id=UserStatus.DISABLED)
        assert await code(await client.delete(grant_of(admin, "admin"))) == (409, "last_superuser")
        assert (await client.get(ROLES)).status_code == 200

    async def test_nobody_revokes_what_they_do_not_hold(
        self, clerk: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        """Of an account below their own, too: the role is more than what it holds now."""
        await new_role("writer", "users:write", db=db)
        answer = await client.delete(grant_of(clerk, "writer"))
        assert await code(answer) == (403, "action_not_allowed")

    async def test_one_may_leave_a_role(self, clerk: User, client: httpx.AsyncClient) -> None:
        assert (await client.delete(grant_of(clerk, f"of_user_{clerk.id}"))).status_code == 204
        assert (await client.get(ROLES)).status_code == 403

    async def test_a_process_of_the_version_before_revokes_the_role_admin_too(
        self, admin: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        """While versions change: it knows the column alone."""
        await UserFactory.create(is_superuser=True)
        admin.is_superuser = False
        await db.commit()
        assert (await client.get("/api/v1/users")).status_code == 403
        assert len(await UserRepository().active_admins(db=db, only_verified=False)) == 1

    async def test_what_that_version_revoked_is_granted_again(
        self, admin: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        other = await UserFactory.create(is_superuser=True)
        other.is_superuser = False
        await db.commit()
        assert (await client.put(grant_of(other, "admin"))).status_code == 204
        await login_user(client, other)
        assert (await client.get("/api/v1/users")).status_code == 200


class TestProcesses:
    async def test_what_one_grants_and_revokes_the_other_knows_at_the_next_request(
        self, committed: Database, client: httpx.AsyncClient
    ) -> None:
        """Two applications stand for two processes: nothing of a caller's rights is kept in one."""
        admin, user = await UserFactory.create(is_superuser=True), await UserFactory.create()
        async with committed.session_scope() as db:
            await new_role("reader", "users:read", db=db)
        await login_user(client, user)
        transport = httpx.ASGITransport(make_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=client.headers) as other:
            await login_user(client, admin)
            for method, status in (("PUT", 200), ("DELETE", 403)) * 2:
                assert (await client.request(method, grant_of(user, "reader"))).status_code == 204
                assert (await other.get("/api/v1/users")).status_code == status


class TestRaces:
    @pytest.fixture
    async def bearers(self, committed: Database, client: httpx.AsyncClient) -> list[tuple[User, dict[str, str]]]:
        """Two administrators, and what each sends along."""
        found = []
        for user in await UserFactory.create_batch(2, is_superuser=True):
            found.append((user, {"Authorization": f"Bearer {(await login_user(client, user))['access_token']}"}))
        return found

    async def test_of_two_administrators_who_revoke_each_other_one_stays(
        self, bearers: list[tuple[User, dict[str, str]]], client: httpx.AsyncClient, committed: Database
    ) -> None:
        (one, ones), (other, others) = bearers
        answers = await asyncio.gather(
            client.delete(grant_of(other, "admin"), headers=ones),
            client.delete(grant_of(one, "admin"), headers=others),
            client.delete(grant_of(one, "admin"), headers=ones),
            client.patch(f"/api/v1/users/{other.id}", json={"status_id": 2}, headers=others),
        )
        assert all(answer.status_code < 500 for answer in answers)
        async with committed.session_scope(read_only=True) as db:
            assert len(await UserRepository().active_admins(db=db, only_verified=False)) == 1

    async def test_a_role_is_deleted_or_granted(
        self, bearers: list[tuple[User, dict[str, str]]], client: httpx.AsyncClient, committed: Database
    ) -> None:
        (one, headers), _ = bearers
        for number in range(4):
            async with committed.session_scope() as db:
                role = await new_role(f"role{number}", db=db)
            deleted, granted = await asyncio.gather(
                client.delete(f"{ROLES}/{role.id}", headers=headers),
                client.put(grant_of(one, role.name), headers=headers),
            )
            assert (deleted.status_code, granted.status_code) in ((204, 404), (409, 204))
            async with committed.session_scope(read_only=True) as db:
                rows = (await db.scalars(select(UserRole).where(UserRole.role_id == role.id))).all()
                assert len(rows) == (granted.status_code == 204)

    async def test_a_role_made_twice_is_made_once(
        self, bearers: list[tuple[User, dict[str, str]]], client: httpx.AsyncClient
    ) -> None:
        (_, headers), _ = bearers
        body = {"name": "editor", "permissions": ["users:read"]}
        answers = await asyncio.gather(*(client.post(ROLES, json=body, headers=headers) for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
        (made,) = (answer.json()["data"]["id"] for answer in answers if answer.status_code == 201)
        wide = {"permissions": ["users:read", "users:write"]}
        narrow: dict[str, Any] = {"permissions": []}
        changes = (client.patch(f"{ROLES}/{made}", json=each, headers=headers) for each in (wide, narrow) * 3)
        assert {answer.status_code for answer in await asyncio.gather(*changes)} == {200}
        held = (await client.get(f"{ROLES}/{made}", headers=headers)).json()["data"]["permissions"]
        assert held in (wide["permissions"], [])
