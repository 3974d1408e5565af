"""From what happens in auth to a row: what is kept, and what never is."""

from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.models import AuditEvent, Outcome
from app.auth import CredentialEvent, CredentialRefused, SecurityEvent
from app.core.configs import get_settings
from app.core.db import Database, session_scope
from app.core.db.jobs import Job
from app.core.services.events.interface import current_events, listeners
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail, freeze, login_user

LOGIN = "/api/v1/auth/login"
# What anybody may cause who knows a name, an address or a stolen token.
UNPROVEN = {"user_created", "login_failed", "refresh_token_reused", "password_reset_requested"}
Drain = Callable[[], Awaitable[int]]


async def kept(db: AsyncSession) -> list[AuditEvent]:
    """Every row, in the order in which things happened."""
    return list(await db.scalars(select(AuditEvent).order_by(AuditEvent.occurred_at)))


def events_of_auth(cls: type[SecurityEvent] = SecurityEvent) -> Iterator[type[SecurityEvent]]:
    for subclass in cls.__subclasses__():
        if subclass.__module__ == "app.auth.events" and subclass not in (CredentialEvent, CredentialRefused):
            yield from events_of_auth(subclass) if subclass.__subclasses__() else (subclass,)


async def test_every_security_event_of_auth_is_heard(app: FastAPI) -> None:
    """Whoever adds an event to auth adds its listener here; those of another module's credentials need none."""
    heard = {found.event for found in listeners if found.name.startswith("app.audit.")}
    assert heard == {*events_of_auth(), CredentialEvent, CredentialRefused}


class CardIssued(CredentialEvent):
    """An event of a module that offers a credential of its own."""

    card: str


class TestKept:
    async def test_events_of_credentials_that_only_their_module_knows(self, db: AsyncSession, drain: Drain) -> None:
        user = await UserFactory.create()
        async with session_scope():
            current_events().dispatch(CardIssued(user_id=user.id, actor_id=user.id, card="blue"))
        await drain()

        (row,) = await kept(db)
        assert (row.kind, row.outcome, row.subject_id) == ("card_issued", Outcome.SUCCESS, user.id)
        assert row.details == {"card": "blue"}

    async def test_a_login_with_where_it_came_from(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain
    ) -> None:
        user = await UserFactory.create()
        headers = {"User-Agent": "Browser\t1 " + "x" * 500, "X-Conversation-ID": "checkout-7"}

        answer = await client.post(LOGIN, data={"username": user.email, "password": PASSWORD}, headers=headers)
        await drain()

        (row,) = await kept(db)
        assert (row.kind, row.outcome) == ("login_succeeded", Outcome.SUCCESS)
        assert (row.actor_id, row.subject_id) == (user.id, user.id)
        assert (row.address, row.user_agent) == ("192.0.2.1", ("Browser1 " + "x" * 500)[:200])
        assert (row.request_id, row.conversation_id) == (answer.headers["X-Request-ID"], "checkout-7")
        assert set(row.details) == {"session_id"}

    async def test_refused_logins_of_whoever_it_was(
        self, committed: Database, client: httpx.AsyncClient, drain: Drain
    ) -> None:
        """The request ends in an error and its unit rolls back; the event is stored all the same."""
        user = await UserFactory.create()
        for name in (user.email, "nobody@example.com"):
            assert (await client.post(LOGIN, data={"username": name, "password": "wrong"})).status_code == 401
        await drain()

        async with committed.session_scope(read_only=True) as db:
            known, unknown = await kept(db)
        assert {known.kind, unknown.kind} == {"login_failed"}
        assert {known.outcome, unknown.outcome} == {Outcome.FAILURE}
        assert (known.actor_id, known.subject_id, known.details) == (None, user.id, {"reason": "wrong_password"})
        assert (unknown.actor_id, unknown.subject_id) == (None, None)
        assert unknown.details == {"reason": "unknown_account"}

    async def test_who_did_it_to_whom(self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain) -> None:
        admin, user = await UserFactory.create(is_superuser=True), await UserFactory.create()
        await login_user(client, admin)

        await client.patch(f"/api/v1/users/{user.id}", json={"status_id": 2, "username": "renamed"})
        await client.delete(f"/api/v1/users/{user.id}")
        await drain()

        _login, *rows = await kept(db)
        assert {(row.actor_id, row.subject_id) for row in rows} == {(admin.id, user.id)}
        assert [(row.kind, row.details) for row in rows] == [
            ("user_updated", {"fields": ["username", "status_id"]}),
            ("user_status_changed", {"status_id": 2}),
            ("user_deleted", {}),
        ]

    async def test_a_whole_life_once_each(
        self, committed: Database, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        """Every kind of event, through HTTP, the table of jobs and back, from one address."""
        admin, other = await UserFactory.create(is_superuser=True), "another good one"
        account = {"email": "ann@example.com", "username": "ann", "password": PASSWORD}
        expected: list[tuple[str, bool]] = []  # kind, and whether its account was proven to be the actor

        async def does(method: str, path: str, body: dict[str, Any] | None, status: int, *kinds: str) -> httpx.Response:
            answer = await client.request(method, f"/api/v1{path}", json=body)
            assert answer.status_code == status, answer.text
            expected.extend((kind, kind not in UNPROVEN) for kind in kinds)
            await drain()
            return answer

        async def logs_in() -> dict[str, Any]:
            tokens: dict[str, Any] = (await client.post(LOGIN, data={"username": "ann", "password": PASSWORD})).json()
            client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
            expected.append(("login_succeeded", True))
            return tokens

        ann = (await does("POST", "/auth/register", account, 201, "user_created")).json()["data"]["id"]
        await client.post(LOGIN, data={"username": "ann", "password": "wrong"})
        expected.append(("login_failed", False))
        await logs_in()
        refresh = {"refresh_token": (await logs_in())["refresh_token"]}
        sessions = (await client.get("/api/v1/auth/sessions")).json()["data"]
        (first,) = (session["id"] for session in sessions if not session["is_current"])
        await does("DELETE", f"/auth/sessions/{first}", None, 204, "session_revoked")
        await does("GET", "/profile/export", None, 200, "personal_data_exported")
        await does("POST", "/auth/refresh-token", refresh, 200)
        with freeze(timedelta(seconds=11)):
            await does("POST", "/auth/refresh-token", refresh, 401, "refresh_token_reused")
        await logs_in()
        await does("POST", "/auth/logout", None, 204, "logged_out")
        await logs_in()
        change = {"current_password": "wrong", "new_password": other}
        await does("POST", "/profile/password", change, 422, "password_confirmation_failed")
        await does("POST", "/profile/password", change | {"current_password": PASSWORD}, 204, "password_changed")
        await does("POST", "/auth/restore-password", {"email": account["email"]}, 202, "password_reset_requested")
        reset = {"token": captured_mail.token_for(account["email"]), "new_password": PASSWORD}
        await does("POST", "/auth/reset-password", reset, 204, "password_reset_completed")
        await logs_in()
        moved = {"email": "new@example.com", "current_password": PASSWORD}
        await does("PATCH", "/profile", moved, 200, "user_updated", "email_address_changed")
        link = {"token": captured_mail.token_for("new@example.com")}
        await does("POST", "/auth/verify-email", link, 204, "email_address_verified")
        await does("POST", "/auth/logout-all", None, 204, "logged_out_everywhere")
        async with committed.session_scope(read_only=True) as db:
            own = {row.id: row for row in await kept(db)}
        await login_user(client, admin)
        await does("PATCH", f"/users/{ann}", {"is_superuser": True}, 200)
        await does("PATCH", f"/users/{ann}", {"is_superuser": False, "status_id": 2}, 200)
        await does("DELETE", f"/users/{ann}", None, 204)

        async with committed.session_scope(read_only=True) as db:
            rows = await kept(db)
        assert sorted((row.kind, row.actor_id == ann) for row in own.values()) == sorted(expected)
        assert {row.subject_id for row in rows} == {ann, admin.id}
        by_admin = [(row.kind, row.actor_id, row.subject_id) for row in rows if row.id not in own][1:]
        assert sorted(by_admin) == [
            ("role_granted", admin.id, ann),
            ("role_revoked", admin.id, ann),
            ("superuser_changed", admin.id, ann),
            ("superuser_changed", admin.id, ann),
            ("user_deleted", admin.id, ann),
            ("user_status_changed", admin.id, ann),
            ("user_updated", admin.id, ann),
            ("user_updated", admin.id, ann),
        ]
        kinds = {event.__event_name__ for event in events_of_auth()}
        assert {row.kind for row in rows} == kinds - {"access_refused", "role_changed"}  # not of an account
        assert {(row.address, row.user_agent) for row in rows} == {("192.0.2.1", client.headers["User-Agent"])}
        assert all(row.request_id and row.conversation_id for row in rows)


class TestNotKept:
    async def test_a_registration_that_was_refused(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain
    ) -> None:
        await UserFactory.create(username="ann")
        account = {"email": "a@example.com", "username": "ann", "password": PASSWORD}

        assert (await client.post("/api/v1/auth/register", json=account)).status_code == 409
        assert (await client.post("/api/v1/auth/register", json=account | {"username": "ben"})).status_code == 201
        await drain()

        assert [row.kind for row in await kept(db)] == ["user_created"]

    async def test_what_was_typed(self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain) -> None:
        """People type their password into the field above: neither field is in a row, nor in a job."""
        user = await UserFactory.create()
        tokens = await login_user(client, user)
        secrets = ["hunter2", PASSWORD, tokens["access_token"], tokens["refresh_token"]]

        await client.post(LOGIN, data={"username": "hunter2 in the wrong field", "password": "x"})
        await client.post(LOGIN, data={"username": user.username, "password": "hunter2 in its own field"})
        await client.post(
            "/api/v1/profile/password", json={"current_password": PASSWORD, "new_password": "hunter2 is no good secret"}
        )
        await client.post("/api/v1/auth/restore-password", json={"email": "hunter2@example.com"})
        jobs = [str(payload) for payload in await db.scalars(select(Job.payload))]
        await drain()

        rows = await kept(db)
        assert len(rows) == 5
        for text in (*jobs, *(str(row.to_dict()) for row in rows)):
            assert not [secret for secret in secrets if secret in text]

    async def test_what_the_limit_refuses(self, app: FastAPI, db: AsyncSession, drain: Drain) -> None:
        """However often a client tries, it writes no more rows than the limit lets it try passwords."""
        settings = get_settings().model_copy(update={"RATE_LIMITER_ENABLED": True})
        app.dependency_overrides[get_settings] = lambda: settings
        transport = httpx.ASGITransport(app, client=("198.51.100.200", 50000))  # whose window no other test fills
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as guesser:
                for number in range(20):  # accounts have limits of their own
                    await guesser.post(LOGIN, data={"username": f"nobody{number}", "password": "wrong"})
        finally:
            app.dependency_overrides.pop(get_settings)
        await drain()

        assert len(await kept(db)) == 5
