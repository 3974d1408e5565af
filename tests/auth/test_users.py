"""Administration of accounts."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig
from app.auth.models import AuthSession, User, UserStatus
from app.core.db import Database
from tests.auth.mails import text_of
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail, login_user

URL = "/api/v1/users"
Configure = Callable[..., AuthConfig]
Drain = Callable[[], Awaitable[int]]


@pytest.fixture
async def admin(db: AsyncSession, client: httpx.AsyncClient) -> User:
    """An administrator, logged in."""
    user = await UserFactory.create(username="admin", is_superuser=True)
    await login_user(client, user)
    return user


def new_user(**changes: Any) -> dict[str, Any]:
    return {"email": "ann@example.com", "username": "ann", "password": PASSWORD} | changes


class TestMe:
    async def test_it_is_the_profile(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        await login_user(client, await UserFactory.create())

        answer = await client.get(f"{URL}/me")

        assert answer.status_code == 200
        assert answer.json() == (await client.get("/api/v1/profile")).json()

    async def test_it_needs_a_token(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        assert (await client.get(f"{URL}/me")).status_code == 401


class TestList:
    async def test_the_documented_query(self, admin: User, client: httpx.AsyncClient) -> None:
        users = [admin, *await UserFactory.create_batch(4)]
        wanted = f"[{users[0].id},{users[1].id}]"

        answer = await client.get(f"{URL}?sort=id:desc,username:asc&page=1&per_page=3&filters=id:{wanted}")

        assert answer.status_code == 200
        assert [item["id"] for item in answer.json()["data"]] == [users[1].id, users[0].id]
        assert answer.json()["meta"] == {"pagination": {"total": 2, "page": 1, "per_page": 3}}
        assert answer.headers["X-Total-Count"] == "2"
        assert 'rel="first"' in answer.headers["Link"]
        assert list(answer.json()["data"][0]) == [
            "id",
            "email",
            "username",
            "status_id",
            "is_verified",
            "created_at",
            "updated_at",
        ]

    @pytest.mark.parametrize("order", ["asc", "desc"])
    async def test_a_walk_by_cursor_meets_everyone_in_every_order(
        self, admin: User, client: httpx.AsyncClient, order: str
    ) -> None:
        everyone = {admin.id, *(user.id for user in await UserFactory.create_batch(6))}
        for field in ("id", "email", "username", "status_id", "is_verified", "created_at", "updated_at"):
            met, cursor = [], ""
            while cursor is not None:
                answer = await client.get(f"{URL}?sort={field}:{order}&per_page=2&cursor={cursor}")
                assert answer.status_code == 200, answer.text
                met += [item["id"] for item in answer.json()["data"]]
                cursor = answer.json()["meta"]["pagination"]["next_cursor"]
            assert (sorted(met), len(met)) == (sorted(everyone), len(everyone)), field

    async def test_lookups(self, admin: User, client: httpx.AsyncClient) -> None:
        await UserFactory.create(username="Ann_1", is_verified=False)
        await UserFactory.create(username="annx1")
        answer = await client.get(f"{URL}?filters=username__ilike:NN_,is_verified__ne:true,id__gt:{admin.id}")
        assert [item["username"] for item in answer.json()["data"]] == ["Ann_1"]

    async def test_deleted_users_are_not_listed(self, admin: User, client: httpx.AsyncClient, db: AsyncSession) -> None:
        gone = await UserFactory.create()
        gone.deleted_at = gone.created_at
        await db.commit()

        answer = await client.get(URL)

        assert [item["id"] for item in answer.json()["data"]] == [admin.id]

    @pytest.mark.parametrize(
        "query",
        [
            "sort=password_hash",
            "sort=is_superuser:desc",
            "filters=password_hash:x",
            "filters=email_key:x",
            "filters=status_id:one",
            "filters=id:99999999999999999999",
            "page=0",
            "per_page=101",
        ],
    )
    async def test_what_may_not_be_asked(self, admin: User, client: httpx.AsyncClient, query: str) -> None:
        assert (await client.get(f"{URL}?{query}")).status_code == 422

    async def test_not_without_the_permission(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        await login_user(client, await UserFactory.create())

        answer = await client.get(URL)

        assert (answer.status_code, answer.json()["code"]) == (403, "action_not_allowed")


class TestRead:
    async def test_any_with_the_permission_own_without(self, admin: User, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        assert (await client.get(f"{URL}/{user.id}")).json()["data"]["username"] == user.username

        await login_user(client, user)

        assert (await client.get(f"{URL}/{user.id}")).status_code == 200
        assert (await client.get(f"{URL}/{admin.id}")).status_code == 403
        assert (await client.get(f"{URL}/{2**63 - 1}")).status_code == 403

    async def test_the_absent_are_not_found(self, admin: User, client: httpx.AsyncClient) -> None:
        for user_id in (admin.id + 1000, 2**63 - 1):
            answer = await client.get(f"{URL}/{user_id}")
            assert (answer.status_code, answer.json()["code"]) == (404, "user_not_found")

    @pytest.mark.parametrize("path", ["0", "-1", "abc", "1.5", "1e3", str(2**63), "9" * 500, "%00", "%ff", "\uff11"])
    async def test_what_is_no_id_is_no_500(self, admin: User, client: httpx.AsyncClient, path: str) -> None:
        for method in ("GET", "PATCH", "DELETE"):
            assert (await client.request(method, f"{URL}/{path}", json={})).status_code in (404, 422)


class TestCreate:
    async def test_the_account_works(
        self, admin: User, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail, db: AsyncSession
    ) -> None:
        answer = await client.post(URL, json=new_user(is_verified=True))

        assert answer.status_code == 201
        assert answer.json()["data"]["is_verified"]
        user = await db.get_one(User, answer.json()["data"]["id"])
        assert not user.is_superuser
        await login_user(client, user)
        await drain()
        assert "#token=" not in text_of(captured_mail.to("ann@example.com")[0])

    @pytest.mark.parametrize(
        ("changes", "code"),
        [({"username": "ADMIN"}, "username_taken"), ({"email": "ADMIN@example.com"}, "email_taken")],
    )
    async def test_conflicts(self, admin: User, client: httpx.AsyncClient, changes: dict[str, Any], code: str) -> None:
        answer = await client.post(URL, json=new_user(**changes))

        assert (answer.status_code, answer.json()["code"]) == (409, code)

    async def test_superusers_can_be_made(self, admin: User, client: httpx.AsyncClient, db: AsyncSession) -> None:
        answer = await client.post(URL, json=new_user(is_superuser=True))

        assert "is_superuser" not in answer.json()["data"]
        assert (await db.get_one(User, answer.json()["data"]["id"])).is_superuser

    async def test_not_without_the_permission(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        await login_user(client, await UserFactory.create())

        assert (await client.post(URL, json=new_user())).status_code == 403


class TestUpdate:
    async def test_every_field(self, admin: User, client: httpx.AsyncClient, db: AsyncSession) -> None:
        user = await UserFactory.create(is_verified=False)
        changes = {"email": "New@example.com", "username": "New", "is_verified": True, "status_id": 2}

        answer = await client.patch(f"{URL}/{user.id}", json=changes)

        assert answer.status_code == 200
        assert {name: answer.json()["data"][name] for name in changes} == changes
        keys = (await db.execute(select(User.email_key, User.username_key).where(User.id == user.id))).one()
        assert tuple(keys) == ("new@example.com", "new")

    async def test_a_new_address_has_to_be_verified_and_the_old_one_is_told(
        self, admin: User, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create(email="old@example.com")

        answer = await client.patch(f"{URL}/{user.id}", json={"email": "new@example.com"})

        assert answer.json()["data"]["is_verified"] is False
        await drain()
        assert len(captured_mail.to("old@example.com")) == 1
        assert captured_mail.token_for("new@example.com")

    async def test_disabling_ends_the_sessions_and_enabling_does_not_bring_them_back(
        self, admin: User, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        user = await UserFactory.create()
        tokens = await login_user(client, user)
        theirs = {"Authorization": f"Bearer {tokens['access_token']}"}
        await login_user(client, admin)

        await client.patch(f"{URL}/{user.id}", json={"status_id": 2})
        assert (await client.get("/api/v1/profile", headers=theirs)).status_code == 401
        await client.patch(f"{URL}/{user.id}", json={"status_id": 1})
        assert (await client.get("/api/v1/profile", headers=theirs)).status_code == 401
        reason = await db.scalar(select(AuthSession.revoke_reason).where(AuthSession.user_id == user.id))
        assert reason == "account_disabled"

    @pytest.mark.parametrize(
        "body",
        [
            {"email": None},
            {"username": None},
            {"status_id": None},
            {"status_id": 3},
            {"status_id": "on"},
            {"is_verified": None},
            {"is_superuser": None},
            {"is_superuser": "maybe"},
            {"password": "another good one"},
            {"id": 5},
            {"deleted_at": None},
            [],
            None,
        ],
        ids=str,
    )
    async def test_what_is_refused(self, admin: User, client: httpx.AsyncClient, body: Any) -> None:
        user = await UserFactory.create()
        before = (await client.get(f"{URL}/{user.id}")).json()

        assert (await client.patch(f"{URL}/{user.id}", json=body)).status_code == 422
        assert (await client.get(f"{URL}/{user.id}")).json() == before

    async def test_ones_own_address_takes_the_password(self, client: httpx.AsyncClient, db: AsyncSession) -> None:
        """Else whoever has stolen the token would have a link for a new password mailed to themselves."""
        writer = await UserFactory.create(permissions=["users:write"])
        await login_user(client, writer)
        path = f"/api/v1/users/{writer.id}"
        refused = await client.patch(path, json={"email": "thief@example.com", "is_verified": True})
        assert (refused.status_code, refused.json()["code"]) == (403, "action_not_allowed")
        assert (await client.delete(path)).status_code == 403
        assert (await client.patch(path, json={"username": "renamed", "email": writer.email})).status_code == 200

    async def test_conflicts_change_nothing(self, admin: User, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()

        answer = await client.patch(f"{URL}/{user.id}", json={"username": "ADMIN", "status_id": 2})

        assert (answer.status_code, answer.json()["code"]) == (409, "username_taken")
        assert (await client.get(f"{URL}/{user.id}")).json()["data"]["status_id"] == 1

    async def test_the_absent_are_not_found(self, admin: User, client: httpx.AsyncClient) -> None:
        assert (await client.patch(f"{URL}/{admin.id + 1000}", json={})).status_code == 404

    async def test_not_even_oneself_without_the_permission(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        await login_user(client, user)

        assert (await client.patch(f"{URL}/{user.id}", json={"is_superuser": True})).status_code == 403


class TestDelete:
    async def test_it_is_gone_and_its_sessions_with_it(self, admin: User, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        tokens = await login_user(client, user)
        await login_user(client, admin)

        answer = await client.delete(f"{URL}/{user.id}")

        assert (answer.status_code, answer.content) == (204, b"")
        assert (await client.get(f"{URL}/{user.id}")).status_code == 404
        assert (await client.delete(f"{URL}/{user.id}")).status_code == 404
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert (await client.get("/api/v1/profile", headers=headers)).status_code == 401

    async def test_not_without_the_permission(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        await login_user(client, user)

        assert (await client.delete(f"{URL}/{user.id}")).status_code == 403


class TestLastSuperuser:
    @pytest.mark.parametrize("changes", [{"is_superuser": False}, {"status_id": 2}, None], ids=str)
    async def test_is_kept(self, admin: User, client: httpx.AsyncClient, changes: dict[str, Any] | None) -> None:
        await UserFactory.create(is_superuser=True, status_id=UserStatus.DISABLED)
        url = f"{URL}/{admin.id}"

        answer = await (client.delete(url) if changes is None else client.patch(url, json=changes))

        assert (answer.status_code, answer.json()["code"]) == (409, "last_superuser")
        assert (await client.get(URL)).status_code == 200

    async def test_one_of_two_can_go(self, admin: User, client: httpx.AsyncClient) -> None:
        other = await UserFactory.create(is_superuser=True)

        assert (await client.patch(f"{URL}/{other.id}", json={"is_superuser": False})).status_code == 200
        assert (await client.patch(f"{URL}/{admin.id}", json={"is_superuser": False})).status_code == 409

    async def test_two_that_remove_each_other_at_once_do_not_both_succeed(
        self, committed: Database, client: httpx.AsyncClient
    ) -> None:
        one, other = await UserFactory.create_batch(2, is_superuser=True)
        bearers = []
        for user in (one, other):
            bearers.append({"Authorization": f"Bearer {(await login_user(client, user))['access_token']}"})

        answers = await asyncio.gather(
            client.patch(f"{URL}/{other.id}", json={"is_superuser": False}, headers=bearers[0]),
            client.delete(f"{URL}/{one.id}", headers=bearers[1]),
        )

        assert sorted(answer.is_success for answer in answers) == [False, True]
        assert all(answer.status_code < 500 for answer in answers)

    @pytest.mark.parametrize(
        "changes", [{"is_verified": False}, {"email": "mistyped@example.com"}, {"is_superuser": False}, None], ids=str
    )
    async def test_counts_as_gone_once_unverified_where_that_closes_accounts(
        self, admin: User, client: httpx.AsyncClient, configure: Configure, changes: dict[str, Any] | None
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True)
        await UserFactory.create(is_superuser=True, is_verified=False)
        url = f"{URL}/{admin.id}"

        answer = await (client.delete(url) if changes is None else client.patch(url, json=changes))

        assert (answer.status_code, answer.json()["code"]) == (409, "last_superuser")
        assert (await client.get(url)).json()["data"]["email"] == admin.email

    @pytest.mark.parametrize("changes", [{"is_verified": False}, {"email": "mistyped@example.com"}], ids=str)
    async def test_may_be_unverified_where_that_closes_nothing(
        self, admin: User, client: httpx.AsyncClient, changes: dict[str, Any]
    ) -> None:
        assert (await client.patch(f"{URL}/{admin.id}", json=changes)).status_code == 200
