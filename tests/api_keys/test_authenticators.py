"""A key as the credential of a request: who the caller is, what it may do, and what is refused."""

from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from sqlalchemy import delete, event, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.api_keys import ApiKeyRefused, security
from app.api_keys.config import ApiKeysConfig, get_api_keys_config
from app.api_keys.models import ApiKey
from app.auth import ActiveUser, OptionalUser, UserStatus
from app.auth.models import ADMIN, Role, RolePermission, User, UserRole
from app.auth.policies import requires_role
from app.core.api import public
from app.core.db.session import Database
from app.core.deps import CurrentPrincipal, cached
from app.core.identity import client_identity
from app.core.runtime import runtime
from tests.api_keys.conftest import KEYS, Make, Sender, shown
from tests.core.api.asgi import WebSocketExchange
from tests.core.api.conftest import make_app
from tests.core.log.capture import captured_log
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, PublishedEvents, freeze, login_user

USERS, ME = "/api/v1/users", "/api/v1/users/me"

router = APIRouter(prefix="/k")
seen: list[str] = []


@router.get("/principal")
async def principal(request: Request, caller: CurrentPrincipal, user: ActiveUser) -> dict[str, Any]:
    return {
        "principal": str(caller),
        "identity": await client_identity(request),
        "user": request.state.current_user.id,
        "permissions": sorted(user.permissions),
        "roles": sorted(user.roles),
        "is_superuser": user.is_superuser,
        "session_id": caller.session_id,
    }


@router.get("/admins", dependencies=[Depends(requires_role("admin"))])
async def admins() -> str:
    return "in"


@router.get("/cached", dependencies=[public])
@cached(ttl=60)
async def personal(user: OptionalUser) -> str:
    seen.append(str(user and user.id))
    return f"for {user.username if user else 'nobody'} of {sorted(user.permissions) if user else []}"


@router.websocket("/ws")
async def talk(websocket: WebSocket, user: ActiveUser, caller: CurrentPrincipal) -> None:
    await websocket.accept()
    await websocket.send_text(f"{caller} for {user.id}")
    await websocket.receive_text()


@pytest.fixture(scope="module")
async def probe(app: FastAPI) -> FastAPI:
    """The application with the routes above."""
    return make_app(router)


async def row(db: AsyncSession, key: dict[str, Any]) -> ApiKey:
    found = await db.get(ApiKey, key["id"], populate_existing=True)
    assert found is not None
    return found


class TestCaller:
    @pytest.mark.parametrize(
        "headers", [{"x_api_key": "{}"}, {"authorization": "Bearer {}"}, {"authorization": "bearer {}"}]
    )
    async def test_it_acts_for_its_owner_within_its_scopes(
        self, db: AsyncSession, owner: User, make: Make, sender: Sender, probe: FastAPI, headers: dict[str, str]
    ) -> None:
        key = await make(scopes=["users:read"])
        http = await sender(probe, **{name: text.format(key["key"]) for name, text in headers.items()})
        assert (await http.get("/k/principal")).json() == {
            "principal": f"api_key:{key['id']}",
            "identity": f"api_key:{key['id']}",
            "user": owner.id,
            "permissions": ["users:read"],
            "roles": [],
            "is_superuser": False,
            "session_id": None,
        }
        assert (await http.get(USERS)).status_code == 200
        refused = await http.post(USERS, json={"email": "a@example.com", "username": "abc", "password": PASSWORD})
        assert (refused.status_code, refused.json()["code"]) == (403, "action_not_allowed")

    async def test_no_scope_is_no_permission(self, db: AsyncSession, make: Make, sender: Sender) -> None:
        http = await sender(x_api_key=(await make(scopes=[]))["key"])
        assert (await http.get(ME)).status_code == 200
        assert (await http.get(USERS)).status_code == 403

    async def test_the_key_of_an_administrator_is_none(
        self, db: AsyncSession, client: httpx.AsyncClient, make: Make, sender: Sender, probe: FastAPI
    ) -> None:
        await login_user(client, await UserFactory.create(is_superuser=True))
        http = await sender(probe, x_api_key=(await make(scopes=["users:read", "audit:read"]))["key"])
        assert (await http.get("/k/admins")).status_code == 403
        assert (await http.get("/k/principal")).json()["is_superuser"] is False

    async def test_what_the_owner_loses_it_loses_at_the_next_request(
        self, db: AsyncSession, owner: User, make: Make, sender: Sender
    ) -> None:
        http = await sender(x_api_key=(await make(scopes=["users:read", "users:write"]))["key"])
        assert (await http.get(USERS)).status_code == 200
        await db.execute(delete(RolePermission).where(RolePermission.permission == "users:read"))
        await db.commit()
        assert (await http.get(USERS)).status_code == 403
        assert (await http.get(ME)).status_code == 200

    async def test_what_the_owner_gains_it_does_not(
        self, db: AsyncSession, owner: User, make: Make, sender: Sender
    ) -> None:
        http = await sender(x_api_key=(await make(scopes=["users:read"]))["key"])
        admin = await db.scalar(select(Role.id).where(Role.name == ADMIN))
        db.add(UserRole(user_id=owner.id, role_id=admin))
        await db.commit()
        assert (await http.post(USERS, json={})).status_code == 403

    async def test_a_request_costs_two_statements(
        self, db: AsyncSession, make: Make, sender: Sender, probe: FastAPI
    ) -> None:
        http = await sender(probe, x_api_key=(await make())["key"])
        await http.get("/k/principal")  # notes the use
        statements: list[str] = []
        engine = runtime().database.engine.sync_engine
        note = lambda *args: statements.append(args[2])  # noqa: E731  taken off again below
        event.listen(engine, "before_cursor_execute", note)
        try:
            assert (await http.get("/k/principal")).status_code == 200
        finally:
            event.remove(engine, "before_cursor_execute", note)
        assert len([text for text in statements if text.startswith("SELECT")]) == 2, statements
        assert not [text for text in statements if text.startswith(("UPDATE", "INSERT", "DELETE"))]

    async def test_on_a_websocket(self, committed: Database, owner: User, make: Make, probe: FastAPI) -> None:
        key = await make()
        for headers, heard in (
            ([(b"x-api-key", key["key"].encode())], f"api_key:{key['id']} for {owner.id}"),
            ([(b"x-api-key", security.new_text("kit_abcdefghijkl").encode())], None),
        ):
            exchange = WebSocketExchange("/k/ws", client="192.0.2.9", texts=["bye"])
            exchange.scope["headers"] = [*exchange.scope["headers"], *headers]
            await exchange.run(probe)
            texts = [message["text"] for message in exchange.received if message["type"] == "websocket.send"]
            assert texts == ([heard] if heard else [])

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("PATCH", "/api/v1/profile"),
            ("POST", "/api/v1/profile/password"),
            ("DELETE", "/api/v1/profile"),
            ("GET", "/api/v1/auth/sessions"),
            ("DELETE", "/api/v1/auth/sessions/1"),
            ("POST", "/api/v1/auth/logout"),
            ("POST", "/api/v1/auth/logout-all"),
            ("GET", KEYS),
            ("POST", KEYS),
            ("POST", f"{KEYS}/1/rotate"),
            ("DELETE", f"{KEYS}/1"),
        ],
    )
    async def test_the_account_itself_is_out_of_reach(
        self, db: AsyncSession, make: Make, sender: Sender, method: str, path: str
    ) -> None:
        http = await sender(x_api_key=(await make(scopes=["users:read", "users:write"]))["key"])
        body = {"current_password": PASSWORD, "new_password": "another good one", "name": "x"}
        answer = await http.request(method, path, json=body)
        assert answer.status_code in (403, 422), answer.text
        assert answer.status_code == 422 or answer.json()["code"] == "session_required"
        bare = await http.request(method, path)
        assert bare.status_code in (403, 422)


class TestRefusal:
    async def test_each_is_the_same(
        self, db: AsyncSession, owner: User, make: Make, sender: Sender, client: httpx.AsyncClient
    ) -> None:
        """Who has no key learns nothing; who has one that ended not why."""
        revoked, expired, orphan = await make(), await make(), await make()
        assert (await client.delete(f"{KEYS}/{revoked['id']}")).status_code == 204
        (await row(db, expired)).expires_at = (await row(db, expired)).created_at
        (await row(db, orphan)).owner_id = 10**9
        await db.commit()
        live = await make()
        texts = ["", "x", "kit_", live["key"][:-1], live["key"] + "0", live["key"][:-7] + "_" + live["key"][-6:]]
        texts += [security.new_text(live["prefix"]), security.new_text(security.new_prefix()), security.new_text()]
        texts += [key["key"] for key in (revoked, expired, orphan)]
        answers = set()
        for text in texts:
            answer = await (await sender(x_api_key=text)).get(ME)
            problem = answer.json()
            problem.pop("request_id")
            answers.add((answer.status_code, answer.headers["www-authenticate"], str(problem)))
            assert len(text) < 8 or text not in str(answer.headers) + answer.text
        assert len(answers) == 1
        assert "401" in str(answers)
        assert "'code': 'invalid_api_key'" in str(answers)

    @pytest.mark.parametrize(
        "change",
        [{"status_id": UserStatus.DISABLED}, {"password_change_required": True}, {"is_verified": False}],
        ids=["disabled", "waits_for_a_password", "unverified"],
    )
    async def test_an_owner_who_cannot_act(
        self,
        db: AsyncSession,
        owner: User,
        make: Make,
        sender: Sender,
        change: dict[str, Any],
        configure: Any,
    ) -> None:
        http = await sender(x_api_key=(await make())["key"])
        configure(USER_VERIFICATION_REQUIRED=True)
        assert (await http.get(ME)).status_code == 200
        await db.execute(update(User).where(User.id == owner.id).values(change))
        await db.commit()
        assert (await http.get(ME)).json()["code"] == "invalid_api_key"

    async def test_a_deleted_owner(
        self, db: AsyncSession, owner: User, make: Make, sender: Sender, client: httpx.AsyncClient
    ) -> None:
        http = await sender(x_api_key=(await make())["key"])
        body = {"current_password": PASSWORD}
        assert (await client.request("DELETE", "/api/v1/profile", json=body)).status_code == 204
        assert (await http.get(ME)).status_code == 401

    async def test_300_wrong_keys_cost_neither_a_statement_nor_a_hash(
        self, db: AsyncSession, make: Make, sender: Sender
    ) -> None:
        key = (await make())["key"]
        statements: list[str] = []
        engine = runtime().database.engine.sync_engine
        note = lambda *args: statements.append(args[2])  # noqa: E731  taken off again below
        http = await sender()
        event.listen(engine, "before_cursor_execute", note)
        try:
            answers = Counter(
                [
                    (await http.get(ME, headers={"X-API-Key": key[:20] + f"{number:043}" + key[-6:]})).status_code
                    for number in range(300)
                ]
            )
        finally:
            event.remove(engine, "before_cursor_execute", note)
        assert answers == {401: 300}
        assert not [text for text in statements if "api_keys" in text or "auth_users" in text]

    async def test_two_credentials_that_disagree(
        self, db: AsyncSession, owner: User, make: Make, sender: Sender, client: httpx.AsyncClient
    ) -> None:
        one, other = (await make())["key"], (await make())["key"]
        session = client.headers["Authorization"]
        for headers in (
            [("X-API-Key", one), ("Authorization", session)],
            [("X-API-Key", one), ("Authorization", f"Bearer {other}")],
            [("X-API-Key", one), ("X-API-Key", other)],
            [("X-API-Key", one), ("Authorization", "Bearer nonsense")],
            [("X-API-Key", "nonsense"), ("Authorization", session)],
        ):
            answer = await (await sender()).get(ME, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "invalid_api_key"), headers
        same = [("X-API-Key", one), ("Authorization", f"Bearer {one}")]
        assert (await (await sender()).get(ME, headers=same)).status_code == 200
        proxied = [("X-API-Key", one), ("Authorization", "Basic YTpi")]  # of a proxy in front
        assert (await (await sender()).get(ME, headers=proxied)).status_code == 200

    async def test_an_optional_caller_is_refused_too(
        self, db: AsyncSession, make: Make, sender: Sender, probe: FastAPI
    ) -> None:
        assert (await (await sender(probe, x_api_key="kit_x")).get("/k/cached")).status_code == 401

    async def test_a_right_key_that_ended_is_told_once(
        self,
        db: AsyncSession,
        owner: User,
        make: Make,
        sender: Sender,
        client: httpx.AsyncClient,
        published_events: PublishedEvents,
    ) -> None:
        key = await make()
        await client.delete(f"{KEYS}/{key['id']}")
        http = await sender(x_api_key=key["key"], user_agent="curl")
        for _ in range(3):
            assert (await http.get(ME)).status_code == 401
        (told,) = published_events.of(ApiKeyRefused)
        assert (told.user_id, told.actor_id, told.api_key_id) == (owner.id, None, key["id"])
        assert (told.origin.address, told.origin.user_agent) == ("198.51.100.7", "curl")

    async def test_without_the_secret_nobody_makes_events(
        self, db: AsyncSession, make: Make, sender: Sender, client: httpx.AsyncClient, published_events: PublishedEvents
    ) -> None:
        key = await make()
        await client.delete(f"{KEYS}/{key['id']}")
        http = await sender(x_api_key=security.new_text(key["prefix"]))
        assert (await http.get(ME)).status_code == 401
        assert published_events.of(ApiKeyRefused) == []


class TestLastUse:
    async def test_it_is_noted_once_a_minute_after_a_read_too(
        self, committed: Database, owner: User, make: Make, sender: Sender, client: httpx.AsyncClient
    ) -> None:
        key = await make()
        http = await sender(x_api_key=key["key"])

        async def noted() -> Any:
            return (await shown(client, key))["last_used_at"]

        assert await noted() is None
        assert (await http.get(ME)).status_code == 200
        first = await noted()
        assert first
        await http.get(ME)
        assert await noted() == first
        with freeze(timedelta(seconds=61)):
            await http.get(ME)
        assert await noted() > first

    async def test_a_request_that_fails_has_used_it(
        self, committed: Database, owner: User, make: Make, sender: Sender, client: httpx.AsyncClient
    ) -> None:
        key = await make(scopes=[])
        assert (await (await sender(x_api_key=key["key"])).post(USERS, json={})).status_code in (403, 422)
        assert (await shown(client, key))["last_used_at"]


class TestLimits:
    async def test_a_key_has_a_limit_of_its_own_on_all_routes(
        self, app: FastAPI, db: AsyncSession, make: Make, sender: Sender, limit: Any
    ) -> None:
        keys = [(await make())["key"] for _ in range(2)]
        limit()
        app.dependency_overrides[get_api_keys_config] = lambda: ApiKeysConfig(API_KEYS_PER_MINUTE=3)
        try:
            one, other = [await sender(x_api_key=key) for key in keys]
            statuses = [(await one.get(path)).status_code for path in (ME, USERS, ME, USERS)]
            assert statuses == [200, 200, 200, 429]
            assert (await other.get(ME)).status_code == 200
        finally:
            app.dependency_overrides.pop(get_api_keys_config)

    async def test_refusals_count_by_address_and_a_right_key_still_passes(
        self, db: AsyncSession, make: Make, sender: Sender, limit: Any
    ) -> None:
        key = (await make())["key"]
        limit()
        http = await sender()
        answers = Counter(
            [(await http.get(ME, headers={"X-API-Key": security.new_text()})).status_code for _ in range(40)]
        )
        assert answers == {401: 30, 429: 10}
        assert (await http.get(ME, headers={"X-API-Key": key})).status_code == 200


class TestCache:
    async def test_each_key_and_the_session_have_an_entry(
        self, db: AsyncSession, owner: User, make: Make, sender: Sender, probe: FastAPI, client: httpx.AsyncClient
    ) -> None:
        seen.clear()
        wide, narrow = await make(scopes=["users:read"]), await make(scopes=[])
        session = client.headers["Authorization"]
        bodies = []
        for headers in ({"x_api_key": wide["key"]}, {"x_api_key": narrow["key"]}, {"authorization": session}, {}):
            http = await sender(probe, **headers)
            answers = [await http.get("/k/cached") for _ in range(2)]
            assert answers[0].text == answers[1].text
            assert "x-api-key" in answers[0].headers["vary"].lower()
            assert answers[0].headers["cache-control"].startswith("private" if headers else "public")
            bodies.append(answers[0].text)
        assert len(set(bodies)) == 4
        assert len(seen) == 4


class TestLog:
    async def test_lines_name_the_key_and_never_show_it(self, db: AsyncSession, make: Make, sender: Sender) -> None:
        key = await make(scopes=[])
        secret = key["key"].rpartition("_")[2]
        with captured_log() as lines:
            for text in (key["key"], key["key"][:-1]):
                for headers in ({"x_api_key": text}, {"authorization": f"Bearer {text}"}):
                    http = await sender(**headers)
                    for path in (USERS, f"{ME}?api_key={text}", f"/nowhere/{text}"):
                        await http.get(path)
        assert secret[:20] not in str(lines.all())
        assert {line["user"] for line in lines.all("request") if "user" in line} == {f"api_key:{key['id']}"}
