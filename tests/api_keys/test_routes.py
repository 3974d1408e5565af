"""Making, listing, rotating and revoking keys, and service accounts."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.api_keys import ApiKeyCreated, ApiKeyRevoked, ApiKeyRotated
from app.api_keys.config import ApiKeysConfig, get_api_keys_config
from app.api_keys.models import ApiKey
from app.api_keys.schemas import ApiKeyCreate, Rotation
from app.api_keys.services import KEYS_PER_OWNER, ApiKeyService
from app.auth import ActionNotAllowed, CredentialEvent, CredentialRefused, UserDTO, get_gateway
from app.auth.models import AuthSession, User
from app.core.db.jobs import Job
from app.core.db.session import Database
from app.core.services.events.interface import current_events
from tests.api_keys.conftest import KEYS, Make, Sender, shown
from tests.core.api.conftest import make_app
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail, PublishedEvents, freeze, login_user

ME = "/api/v1/users/me"
MACHINES = "/api/v1/service-accounts"


async def can_act(owner: UserDTO) -> bool:
    return True


async def person(client: httpx.AsyncClient, **values: Any) -> User:
    """Log somebody else in with `client`."""
    user = await UserFactory.create(**values)
    await login_user(client, user)
    return user


class TestCreate:
    async def test_the_key_is_shown_once_and_kept_as_a_hash(
        self, db: AsyncSession, owner: User, client: httpx.AsyncClient, published_events: PublishedEvents
    ) -> None:
        answer = await client.post(KEYS, json={"name": "nightly", "scopes": ["users:write", "users:read"]})
        assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
        made = answer.json()["data"]
        key = made.pop("key")
        assert key.startswith(f"{made['prefix']}_")
        assert (made["owner_id"], made["scopes"]) == (owner.id, ["users:read", "users:write"])
        life = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
        assert timedelta(days=89) < life < timedelta(days=90)
        assert (await client.get(KEYS)).json()["data"] == [made]
        (told,) = published_events.of(ApiKeyCreated)
        assert (told.user_id, told.actor_id, told.api_key_id) == (owner.id, owner.id, made["id"])
        stored = (await db.scalars(select(ApiKey))).one().to_dict()
        assert key not in str(stored)

    async def test_scopes_beyond_ones_own_are_named(
        self, db: AsyncSession, owner: User, client: httpx.AsyncClient
    ) -> None:
        scopes = ["users:read", "audit:read", "no:such"]
        answer = await client.post(KEYS, json={"name": "wide", "scopes": scopes})
        assert (answer.status_code, answer.json()["detail"]) == (403, "You do not hold audit:read, no:such.")
        assert (await client.get(KEYS)).json()["data"] == []

    @pytest.mark.parametrize(
        "body",
        [
            {"name": ""},
            {"name": "x" * 101},
            {"name": "x", "scopes": ["Users:Read"]},
            {"name": "x", "scopes": [f"s:{number}" for number in range(101)]},
            {"name": "x", "expires_in_days": 0},
            {"name": "x", "expires_in_days": 367},
            {"name": "x", "expires_in_days": None},
            {"name": "x", "expires_in_days": True},
            {"name": "x", "owner_id": 2**63},
            {"name": "x", "key": "kit_mine"},
            {"name": "x", "prefix": "kit_mine"},
            {"name": "x", "last_used_at": "2026-01-01T00:00:00Z"},
        ],
    )
    async def test_input_that_breaks_a_rule(
        self, db: AsyncSession, owner: User, client: httpx.AsyncClient, body: dict[str, Any]
    ) -> None:
        assert (await client.post(KEYS, json=body)).status_code == 422
        assert (await client.get(KEYS)).json()["data"] == []

    async def test_without_an_end_where_the_service_allows_it(self, app: FastAPI, db: AsyncSession, make: Make) -> None:
        app.dependency_overrides[get_api_keys_config] = lambda: ApiKeysConfig(API_KEYS_MAX_DAYS=0)
        try:
            assert (await make(expires_in_days=None))["expires_at"] is None
            assert (await make(expires_in_days=3660))["expires_at"]
        finally:
            app.dependency_overrides.pop(get_api_keys_config)

    async def test_not_more_than_an_account_may_have_at_once(
        self, committed: Database, owner: User, client: httpx.AsyncClient, make: Make
    ) -> None:
        first = await make()
        values = {"owner_id": owner.id, "name": "x", "secret_hash": "", "scopes": []}
        async with committed.session_scope() as db:
            db.add_all(ApiKey(**values, prefix=str(number)) for number in range(KEYS_PER_OWNER - 3))
            db.add(ApiKey(**values, prefix="ended", revoked_at=datetime.now(UTC)))
        answers = await asyncio.gather(*(client.post(KEYS, json={"name": "x"}) for _ in range(6)))
        assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409, 409, 409]
        assert (await client.post(KEYS, json={"name": "x"})).json()["detail"].endswith("revoke one.")
        await client.delete(f"{KEYS}/{first['id']}")
        assert (await client.post(KEYS, json={"name": "x"})).status_code == 201

    async def test_a_stolen_session_makes_none_without_the_password(
        self, db: AsyncSession, owner: User, client: httpx.AsyncClient, make: Make
    ) -> None:
        key = await make()
        await db.execute(update(AuthSession).values(created_at=datetime.now(UTC) - timedelta(minutes=16)))
        await db.commit()
        for path in (KEYS, f"{KEYS}/{key['id']}/rotate"):
            body = {"name": "late"} if path == KEYS else {}
            answer = await client.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (403, "reauthentication_required")
            wrong = await client.post(path, json={**body, "current_password": "wrong"})
            assert (wrong.status_code, wrong.json()["code"]) == (422, "wrong_password")
            right = await client.post(path, json={**body, "current_password": PASSWORD})
            assert right.status_code in (200, 201)

    async def test_a_narrowed_session_makes_none(
        self, db: AsyncSession, owner: User, client: httpx.AsyncClient
    ) -> None:
        await db.execute(update(AuthSession).values(scope="users:read"))
        await db.commit()
        answer = await client.post(KEYS, json={"name": "x", "scopes": ["users:read"]})
        assert (answer.status_code, answer.json()["code"]) == (403, "session_required")

    async def test_nobody_makes_a_key_of_another_person(
        self, db: AsyncSession, owner: User, client: httpx.AsyncClient
    ) -> None:
        for caller in ({}, {"permissions": ["api_keys:write"]}, {"is_superuser": True}):
            await person(client, **caller)
            answer = await client.post(KEYS, json={"name": "x", "owner_id": owner.id})
            assert (answer.status_code, answer.json()["code"]) == (403, "action_not_allowed")


class TestOthers:
    @pytest.mark.parametrize("permissions", [[], ["users:read", "users:write"]])
    async def test_to_others_a_key_does_not_exist(
        self, db: AsyncSession, make: Make, client: httpx.AsyncClient, permissions: list[str]
    ) -> None:
        key = await make()
        await person(client, permissions=permissions)
        for key_id in (key["id"], 10**9):
            answers = [
                await client.post(f"{KEYS}/{key_id}/rotate", json={}),
                await client.delete(f"{KEYS}/{key_id}"),
            ]
            assert [answer.json()["code"] for answer in answers] == ["api_key_not_found"] * 2
        assert (await client.get(f"{KEYS}?owner_id={key['owner_id']}")).status_code == 403
        assert (await client.get(KEYS)).json()["data"] == []

    async def test_an_administrator_reads_and_revokes_and_does_not_rotate(
        self, db: AsyncSession, owner: User, make: Make, client: httpx.AsyncClient, published_events: PublishedEvents
    ) -> None:
        key = await make()
        admin = await person(client, is_superuser=True)
        listed = await client.get(f"{KEYS}?owner_id={owner.id}")
        assert [item["id"] for item in listed.json()["data"]] == [key["id"]]
        assert (await client.post(f"{KEYS}/{key['id']}/rotate", json={})).status_code == 403
        assert (await client.delete(f"{KEYS}/{key['id']}")).status_code == 204
        (told,) = published_events.of(ApiKeyRevoked)
        assert (told.user_id, told.actor_id) == (owner.id, admin.id)

    async def test_reading_is_not_writing_and_nobody_reaches_above_themselves(
        self, db: AsyncSession, client: httpx.AsyncClient, make: Make
    ) -> None:
        admin = await person(client, is_superuser=True)
        key = await make()
        assert key["owner_id"] == admin.id
        await person(client, permissions=["api_keys:read"])
        assert await shown(client, key)
        assert (await client.delete(f"{KEYS}/{key['id']}")).status_code == 404
        await person(client, permissions=["api_keys:read", "api_keys:write"])
        assert (await client.delete(f"{KEYS}/{key['id']}")).status_code == 403
        assert (await shown(client, key))["revoked_at"] is None


class TestList:
    async def test_the_latest_come_first_and_ended_ones_stay(
        self, db: AsyncSession, owner: User, make: Make, client: httpx.AsyncClient
    ) -> None:
        values = {"owner_id": owner.id, "name": "x", "secret_hash": "", "scopes": [], "revoked_at": datetime.now(UTC)}
        db.add_all(ApiKey(**values, prefix=str(number)) for number in range(20))
        await db.commit()
        latest = (await make())["id"]
        pages = [(await client.get(f"{KEYS}?page={page}")).json() for page in (1, 2, 3)]
        assert [len(page["data"]) for page in pages] == [20, 1, 0]
        assert pages[0]["data"][0]["id"] == latest
        assert pages[0]["meta"]["pagination"]["total"] == 21
        for page in (0, "x", 10**9):
            assert (await client.get(f"{KEYS}?page={page}")).status_code == 422


class TestRotate:
    async def test_both_secrets_are_valid_until_the_overlap_ends(
        self,
        db: AsyncSession,
        owner: User,
        make: Make,
        client: httpx.AsyncClient,
        sender: Sender,
        published_events: PublishedEvents,
    ) -> None:
        old = await make(expires_in_days=30)
        answer = await client.post(f"{KEYS}/{old['id']}/rotate", json={"overlap_seconds": 3600})
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        new = answer.json()["data"]
        assert (new["id"], new["prefix"], new["scopes"]) == (old["id"], old["prefix"], old["scopes"])
        assert new["key"] != old["key"]
        assert new["expires_at"] > old["expires_at"]
        before, after = await sender(x_api_key=old["key"]), await sender(x_api_key=new["key"])
        assert [(await http.get(ME)).status_code for http in (before, after)] == [200, 200]
        with freeze(timedelta(seconds=3601)):
            assert [(await http.get(ME)).status_code for http in (before, after)] == [401, 200]
        (told,) = published_events.of(ApiKeyRotated)
        assert (told.user_id, told.overlap_seconds) == (owner.id, 3600)

    async def test_a_second_rotation_ends_the_first_secret(
        self, db: AsyncSession, make: Make, client: httpx.AsyncClient, sender: Sender
    ) -> None:
        key = await make()
        texts = [key["key"]]
        for _ in range(2):
            texts.append((await client.post(f"{KEYS}/{key['id']}/rotate", json={})).json()["data"]["key"])
        statuses = [(await (await sender(x_api_key=text)).get(ME)).status_code for text in texts]
        assert statuses == [401, 200, 200]

    async def test_the_overlap_does_not_outlast_the_old_end(
        self, db: AsyncSession, make: Make, client: httpx.AsyncClient
    ) -> None:
        key = await make(expires_in_days=1)
        with freeze(timedelta(hours=23)):
            await login_user(client, (await db.scalars(select(User).where(User.username == "owner"))).one())
            new = (await client.post(f"{KEYS}/{key['id']}/rotate", json={"overlap_seconds": 7200})).json()["data"]
        assert new["previous_until"] == key["expires_at"]

    async def test_without_an_overlap_its_tokens_end_too(
        self, db: AsyncSession, make: Make, client: httpx.AsyncClient, sender: Sender
    ) -> None:
        key = await make()
        form = {"grant_type": "client_credentials", "client_id": key["prefix"], "client_secret": key["key"]}
        token = (await client.post(f"{KEYS}/token", data=form, headers={"Authorization": ""})).json()["access_token"]
        http = await sender(authorization=f"Bearer {token}")
        assert (await http.get(ME)).status_code == 200
        await client.post(f"{KEYS}/{key['id']}/rotate", json={"overlap_seconds": 0})
        assert (await http.get(ME)).status_code == 401
        assert (await (await sender(x_api_key=key["key"])).get(ME)).status_code == 401

    async def test_a_token_asked_for_at_the_same_moment_ends_too(
        self, committed: Database, make: Make, client: httpx.AsyncClient, sender: Sender
    ) -> None:
        key, http, tokens = await make(), await sender(), []
        for _ in range(4):
            form = {"grant_type": "client_credentials", "client_id": key["prefix"], "client_secret": key["key"]}
            *exchanged, rotated = await asyncio.gather(
                *(http.post(f"{KEYS}/token", data=form) for _ in range(12)),
                client.post(f"{KEYS}/{key['id']}/rotate", json={"overlap_seconds": 0}),
            )
            key = rotated.json()["data"]
            tokens += [answer.json()["access_token"] for answer in exchanged if answer.status_code == 200]
        for token in tokens:
            assert (await (await sender(authorization=f"Bearer {token}")).get(ME)).status_code == 401

    async def test_what_has_ended_is_not_revived(self, db: AsyncSession, make: Make, client: httpx.AsyncClient) -> None:
        revoked, expired = await make(), await make()
        await client.delete(f"{KEYS}/{revoked['id']}")
        await db.execute(update(ApiKey).where(ApiKey.id == expired["id"]).values(expires_at=datetime.now(UTC)))
        await db.commit()
        for key in (revoked, expired):
            answer = await client.post(f"{KEYS}/{key['id']}/rotate", json={})
            assert (answer.status_code, answer.json()["code"]) == (409, "conflict")

    @pytest.mark.parametrize("overlap", [-1, 7 * 86_400 + 1, "1", None])
    async def test_overlaps_out_of_bounds(
        self, db: AsyncSession, make: Make, client: httpx.AsyncClient, overlap: Any
    ) -> None:
        key = await make()
        answer = await client.post(f"{KEYS}/{key['id']}/rotate", json={"overlap_seconds": overlap})
        assert answer.status_code == 422


class TestRevoke:
    async def test_it_counts_at_the_next_request_and_once(
        self, db: AsyncSession, make: Make, client: httpx.AsyncClient, sender: Sender, published_events: PublishedEvents
    ) -> None:
        key, other = await make(), await make()
        http = await sender(x_api_key=key["key"])
        assert (await http.get(ME)).status_code == 200
        for _ in range(2):
            assert (await client.delete(f"{KEYS}/{key['id']}")).status_code == 204
        assert (await http.get(ME)).status_code == 401
        assert (await (await sender(x_api_key=other["key"])).get(ME)).status_code == 200
        assert len(published_events.of(ApiKeyRevoked)) == 1

    async def test_in_another_process_too(
        self, committed: Database, make: Make, client: httpx.AsyncClient, sender: Sender
    ) -> None:
        """Two applications that share nothing but the database stand for two processes: no state is kept in one."""
        key = await make()
        others = [await sender(make_app(), x_api_key=key["key"]) for _ in range(2)]
        assert [(await http.get(ME)).status_code for http in others] == [200, 200]
        await client.delete(f"{KEYS}/{key['id']}")
        assert [(await http.get(ME)).status_code for http in others] == [401, 401]


class TestServiceAccount:
    @pytest.fixture
    async def machine(self, db: AsyncSession, client: httpx.AsyncClient) -> dict[str, Any]:
        await person(client, is_superuser=True)
        answer = await client.post(MACHINES, json={"username": "importer"})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()["data"]
        return made

    async def test_it_holds_keys_that_do_what_it_may(
        self, db: AsyncSession, machine: dict[str, Any], client: httpx.AsyncClient, sender: Sender
    ) -> None:
        body = {"name": "x", "owner_id": machine["id"], "scopes": ["users:read"]}
        key = (await client.post(KEYS, json=body)).json()["data"]
        assert key["owner_id"] == machine["id"]
        http = await sender(x_api_key=key["key"])
        assert (await http.get(ME)).json()["data"]["username"] == "importer"
        assert (await http.get("/api/v1/users")).status_code == 403, "nobody has granted it anything yet"
        listed = await client.get(f"{KEYS}?owner_id={machine['id']}")
        assert [item["id"] for item in listed.json()["data"]] == [key["id"]]
        assert (await client.post(f"{KEYS}/{key['id']}/rotate", json={})).status_code == 200
        assert (await client.delete(f"{KEYS}/{key['id']}")).status_code == 204

    async def test_it_is_listed_as_one(
        self, db: AsyncSession, machine: dict[str, Any], client: httpx.AsyncClient
    ) -> None:
        found = await client.get("/api/v1/users?filters=email__ilike:@service.invalid")
        assert [user["id"] for user in found.json()["data"]] == [machine["id"]]

    async def test_disabled_for_good_and_deleted_like_any_account(
        self, db: AsyncSession, machine: dict[str, Any], client: httpx.AsyncClient, sender: Sender, drain: Any
    ) -> None:
        """No key that somebody may have stolen comes back when the account is enabled again."""
        path, body = f"/api/v1/users/{machine['id']}", {"name": "x", "owner_id": machine["id"]}
        http = await sender(x_api_key=(await client.post(KEYS, json=body)).json()["data"]["key"])
        for status_id in (2, 1):
            assert (await client.patch(path, json={"status_id": status_id})).status_code == 200
            await drain()
            assert (await http.get(ME)).status_code == 401
        http = await sender(x_api_key=(await client.post(KEYS, json=body)).json()["data"]["key"])
        assert (await http.get(ME)).status_code == 200
        assert (await client.delete(path)).status_code == 204
        assert (await http.get(ME)).status_code == 401

    async def test_who_may_make_one(self, db: AsyncSession, owner: User, client: httpx.AsyncClient) -> None:
        assert (await client.post(MACHINES, json={"username": "importer"})).status_code == 201
        again = await client.post(MACHINES, json={"username": "Importer"})
        assert (again.status_code, again.json()["code"]) == (409, "username_taken")
        await person(client, permissions=["users:read"])
        assert (await client.post(MACHINES, json={"username": "other"})).status_code == 403

    async def test_no_key_of_one_that_may_more(
        self, db: AsyncSession, machine: dict[str, Any], client: httpx.AsyncClient
    ) -> None:
        assert (await client.patch(f"/api/v1/users/{machine['id']}", json={"is_superuser": True})).status_code == 200
        await person(client, permissions=["api_keys:write"])
        answer = await client.post(KEYS, json={"name": "x", "owner_id": machine["id"]})
        assert (answer.status_code, "permissions that you do not hold" in answer.text) == (403, True)

    async def test_whoever_rotates_a_key_holds_its_scopes(
        self, db: AsyncSession, machine: dict[str, Any], client: httpx.AsyncClient
    ) -> None:
        """The account may be granted them later."""
        body = {"name": "x", "owner_id": machine["id"], "scopes": ["users:read"]}
        path = f"{KEYS}/{(await client.post(KEYS, json=body)).json()['data']['id']}"
        await person(client, permissions=["api_keys:write"])
        assert (await client.post(f"{path}/rotate", json={})).status_code == 403
        assert (await client.delete(path)).status_code == 204

    async def test_rights_are_those_of_the_moment_at_which_it_is_made_or_changed(
        self, db: AsyncSession, machine: dict[str, Any], client: httpx.AsyncClient
    ) -> None:
        """They may be taken while the password is hashed or a lock is waited for."""
        body = {"name": "x", "owner_id": machine["id"]}
        key = (await client.post(KEYS, json=body)).json()["data"]
        former = UserDTO.model_validate(await UserFactory.create()).model_copy(
            update={"permissions": frozenset(["api_keys:write"])}
        )
        service = ApiKeyService(
            config=get_api_keys_config(), gateway=await get_gateway(), events=current_events(), can_act=can_act
        )
        with pytest.raises(ActionNotAllowed):
            await service.create(ApiKeyCreate(**body), db=db, by=former)
        with pytest.raises(ActionNotAllowed):
            await service.rotate(key["id"], Rotation(), db=db, by=former)
        with pytest.raises(ActionNotAllowed):
            await service.revoke(key["id"], db=db, by=former)


class TestCanaries:
    async def test_the_secret_is_in_no_row_job_mail_or_event(
        self,
        db: AsyncSession,
        make: Make,
        client: httpx.AsyncClient,
        sender: Sender,
        drain: Any,
        captured_mail: CapturedMail,
        published_events: PublishedEvents,
    ) -> None:
        key = await make()
        new = (await client.post(f"{KEYS}/{key['id']}/rotate", json={})).json()["data"]
        form = {"grant_type": "client_credentials", "client_id": key["prefix"], "client_secret": new["key"]}
        token = (await client.post(f"{KEYS}/token", data=form, headers={"Authorization": ""})).json()["access_token"]
        for text in (key["key"], new["key"], token):
            await (await sender(x_api_key=text)).get(ME)
        await client.delete(f"{KEYS}/{key['id']}")
        for text in (key["key"], new["key"], token):
            await (await sender(x_api_key=text)).get(ME)
        found = [str(job) for job in await db.scalars(select(Job.payload))]
        await drain()
        found += [str(row.to_dict()) for row in await db.scalars(select(ApiKey))]
        found += [str(message) for message in captured_mail.messages()]
        found += [str(told) for told in published_events.all()]
        assert [type(told).__name__ for told in published_events.of(CredentialEvent)] == [
            *("ApiKeyCreated", "ApiKeyRotated", "ApiKeyRevoked")
        ]
        assert len(published_events.of(CredentialRefused)) == 1
        for text in (key["key"], new["key"], token):
            secret = text.rpartition("_")[2][:20]
            assert not [entry for entry in found if secret in entry]
