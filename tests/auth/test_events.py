"""Events of accounts as other modules hear them."""

from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import LoginFailed, SecurityEvent, UserCreated, UserDeleted
from app.auth.config import AuthConfig
from app.auth.models import AuthSession, User, UserStatus
from app.auth.repositories import UserRepository
from app.core.db import Database, utcnow
from app.core.db.jobs import Job
from app.core.deps import events_service, listener
from app.core.services.events import BaseEvent, EventsServiceInterface, ListenedEvent
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail, freeze, login_user

LOGIN = "/api/v1/auth/login"
Drain = Callable[[], Awaitable[int]]
Told = list[tuple[str, dict[str, Any]]]

_heard: list[LoginFailed] = []


@listener(LoginFailed)
async def hear(event: ListenedEvent[LoginFailed]) -> None:
    """A listener as another module has it."""
    _heard.append(event.data)


class RecordedEvents(EventsServiceInterface):
    """Keeps what is dispatched, in the order of dispatch."""

    def __init__(self) -> None:
        self.events: list[SecurityEvent] = []

    def dispatch(self, event: BaseEvent) -> None:
        assert isinstance(event, SecurityEvent)
        self.events.append(event)

    def told(self) -> Told:
        """Name and facts of each since the last time, without where it came from and how the owner is called."""
        others = {"origin", "id", "email", "username"}
        found = [(event.__event_name__, event.model_dump(mode="json", exclude=others)) for event in self.events]
        self.events.clear()
        return found


@pytest.fixture
def events(app: FastAPI) -> Iterator[RecordedEvents]:
    """Events that requests dispatch; no listener hears them."""
    recorded = RecordedEvents()

    async def recording() -> EventsServiceInterface:
        return recorded

    app.dependency_overrides[events_service] = recording
    yield recorded
    app.dependency_overrides.pop(events_service)


@pytest.fixture
async def user(db: AsyncSession, client: httpx.AsyncClient, events: RecordedEvents) -> User:
    """A user, logged in; that is not told any more."""
    user = await UserFactory.create()
    await login_user(client, user)
    events.told()
    return user


def by(actor_id: int, user_id: int | None = None, **facts: Any) -> dict[str, Any]:
    """Return the facts of an event that `actor_id` caused, on their own account unless said otherwise."""
    return {"user_id": user_id or actor_id, "actor_id": actor_id, **facts}


async def session_id(db: AsyncSession) -> int:
    """The latest session."""
    return (await db.scalars(select(AuthSession.id).order_by(AuthSession.id.desc()))).all()[0]


class TestNamedEvents:
    @pytest.mark.parametrize("kind", [UserCreated, UserDeleted])
    def test_they_are_made_of_an_id_and_names(self, kind: type[UserCreated] | type[UserDeleted]) -> None:
        event = kind(id=7, email="ann@example.com", username="ann")

        assert (event.id, event.user_id, event.actor_id) == (7, 7, None)
        assert (event.email, event.username) == ("ann@example.com", "ann")
        assert kind(user_id=7, email="ann@example.com", username="ann") == event

    @pytest.mark.parametrize("kind", [UserCreated, UserDeleted])
    async def test_of_a_whole_row_they_keep_no_more_than_that(
        self, db: AsyncSession, kind: type[UserCreated] | type[UserDeleted]
    ) -> None:
        user = await UserFactory.create()

        stored = kind(**user.to_dict()).model_dump(mode="json")

        assert list(stored) == ["user_id", "actor_id", "origin", "id", "email", "username"]
        assert (stored["user_id"], stored["id"], stored["email"]) == (user.id, user.id, user.email)

    @pytest.mark.parametrize("values", [{}, {"email": "ann@example.com"}, {"id": 7, "user_id": 8}, {"id": None}])
    def test_they_need_one_id(self, values: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="id"):
            UserCreated(**values)

    async def test_a_registration_names_its_owner_and_stores_no_hash(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        account = {"email": "ann@example.com", "username": "ann", "password": PASSWORD}

        user_id = (await client.post("/api/v1/auth/register", json=account)).json()["data"]["id"]

        jobs = (await db.scalars(select(Job).where(Job.task == "events.listen"))).all()
        assert {job.principal for job in jobs} == {f"user:{user_id}"}
        assert {job.queue for job in jobs if job.payload["listener"].endswith(":send_welcome")} == {"mail"}
        for job in jobs:
            named = {name: job.payload["data"][name] for name in ("id", "user_id", "email", "username")}
            assert named == {"id": user_id, "user_id": user_id, "email": "ann@example.com", "username": "ann"}
            assert "argon2" not in str(job.payload)

    async def test_one_that_the_version_before_has_stored_is_heard(
        self, db: AsyncSession, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create(email="ann@example.com")
        old = {
            "listener": "app.auth.listeners:send_welcome",
            "event": "user_created",
            "event_id": "6f0f8a53-5d4c-4a6c-9d2e-0a4c39f1b0aa",
            "occurred_at": "2026-11-01T00:00:00Z",
            "data": {"user_id": user.id, "actor_id": None, "origin": {"address": "192.0.2.1"}},
        }
        db.add(Job(task="events.listen", payload=old, max_attempts=30, available_at=utcnow()))
        await db.commit()

        await drain()

        assert captured_mail.to("ann@example.com")


class TestLogin:
    async def test_a_login(self, db: AsyncSession, client: httpx.AsyncClient, events: RecordedEvents) -> None:
        user = await UserFactory.create()

        answer = await client.post(LOGIN, data={"username": user.email, "password": PASSWORD})

        (event,) = events.events
        assert event.origin.model_dump() == {
            "address": "192.0.2.1",
            "user_agent": client.headers["User-Agent"],
            "request_id": answer.headers["X-Request-ID"],
            "conversation_id": answer.headers["X-Conversation-ID"],
        }
        assert events.told() == [("login_succeeded", by(user.id, session_id=await session_id(db)))]

    async def test_refused_ones_say_why(
        self, db: AsyncSession, client: httpx.AsyncClient, events: RecordedEvents
    ) -> None:
        user = await UserFactory.create()
        disabled = await UserFactory.create(status_id=UserStatus.DISABLED)
        attempts = [(user.email, "wrong"), (disabled.email, PASSWORD), (disabled.email, "wrong"), ("nobody", PASSWORD)]

        for name, password in attempts:
            assert (await client.post(LOGIN, data={"username": name, "password": password})).status_code == 401

        assert events.told() == [
            ("login_failed", {"user_id": user.id, "actor_id": None, "reason": "wrong_password"}),
            ("login_failed", {"user_id": disabled.id, "actor_id": None, "reason": "account_not_active"}),
            ("login_failed", {"user_id": disabled.id, "actor_id": None, "reason": "wrong_password"}),
            ("login_failed", {"user_id": None, "actor_id": None, "reason": "unknown_account"}),
        ]

    async def test_refused_ones_are_stored_though_the_request_failed(
        self, committed: Database, client: httpx.AsyncClient, drain: Drain
    ) -> None:
        _heard.clear()
        user = await UserFactory.create()

        await client.post(LOGIN, data={"username": user.email, "password": "wrong"})
        await client.post(LOGIN, data={"username": "nobody", "password": "wrong"})
        assert _heard == []
        await drain()

        assert [event.user_id for event in _heard] == [user.id, None]


class TestSessions:
    @pytest.mark.parametrize(
        ("path", "name", "facts"),
        [("logout", "logged_out", ["session_id"]), ("logout-all", "logged_out_everywhere", [])],
    )
    async def test_logging_out(
        self,
        db: AsyncSession,
        client: httpx.AsyncClient,
        events: RecordedEvents,
        user: User,
        path: str,
        name: str,
        facts: list[str],
    ) -> None:
        await client.post(f"/api/v1/auth/{path}")

        assert events.told() == [(name, by(user.id, **dict.fromkeys(facts, await session_id(db))))]

    async def test_ending_another_session(
        self, db: AsyncSession, client: httpx.AsyncClient, events: RecordedEvents, user: User
    ) -> None:
        other = await session_id(db)
        await login_user(client, user)
        events.told()

        assert (await client.delete(f"/api/v1/auth/sessions/{other}")).status_code == 204
        assert (await client.delete(f"/api/v1/auth/sessions/{other}")).status_code == 404

        assert events.told() == [("session_revoked", by(user.id, session_id=other, reason="revoked"))]

    async def test_a_stolen_refresh_token_is_told_once(
        self, db: AsyncSession, client: httpx.AsyncClient, events: RecordedEvents
    ) -> None:
        user = await UserFactory.create()
        body = {"refresh_token": (await login_user(client, user))["refresh_token"]}
        await client.post("/api/v1/auth/refresh-token", json=body)
        events.told()

        with freeze(timedelta(seconds=11)):
            for _ in range(3):
                assert (await client.post("/api/v1/auth/refresh-token", json=body)).status_code == 401

        facts = {"user_id": user.id, "actor_id": None, "session_id": await session_id(db)}
        assert events.told() == [("refresh_token_reused", facts)]


class TestOwnAccount:
    async def test_registering(self, db: AsyncSession, client: httpx.AsyncClient, events: RecordedEvents) -> None:
        account = {"email": "ann@example.com", "username": "ann", "password": PASSWORD}

        answer = await client.post("/api/v1/auth/register", json=account)

        assert events.told() == [("user_created", {"user_id": answer.json()["data"]["id"], "actor_id": None})]

    async def test_a_new_password(self, client: httpx.AsyncClient, events: RecordedEvents, user: User) -> None:
        change = {"current_password": PASSWORD, "new_password": "another good one"}

        assert (await client.post("/api/v1/profile/password", json=change)).status_code == 204
        assert events.told() == [("password_changed", by(user.id))]

    async def test_a_wrong_password_where_it_is_asked_for(
        self, client: httpx.AsyncClient, events: RecordedEvents, user: User
    ) -> None:
        wrong = {"current_password": "wrong"}

        for method, path, change in (
            ("POST", "/password", {"new_password": "another good one"}),
            ("PATCH", "", {"email": "new@example.com"}),
            ("DELETE", "", {}),
        ):
            answer = await client.request(method, f"/api/v1/profile{path}", json=wrong | change)
            assert answer.json()["code"] == "wrong_password"

        assert events.told() == [("password_confirmation_failed", by(user.id))] * 3

    async def test_a_new_name(self, client: httpx.AsyncClient, events: RecordedEvents, user: User) -> None:
        await client.patch("/api/v1/profile", json={"username": "renamed"})
        await client.patch("/api/v1/profile", json={"username": "renamed"})

        assert events.told() == [("user_updated", by(user.id, fields=["username"]))]

    async def test_a_new_address(self, client: httpx.AsyncClient, events: RecordedEvents, user: User) -> None:
        await client.patch("/api/v1/profile", json={"email": "new@example.com", "current_password": PASSWORD})

        assert events.told() == [
            ("user_updated", by(user.id, fields=["email", "is_verified"])),
            ("email_address_changed", by(user.id)),
        ]

    async def test_a_new_address_that_counts_once_verified(
        self,
        client: httpx.AsyncClient,
        events: RecordedEvents,
        user: User,
        drain: Drain,
        captured_mail: CapturedMail,
        configure: Callable[..., AuthConfig],
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True)

        await client.patch("/api/v1/profile", json={"email": "new@example.com", "current_password": PASSWORD})
        await drain()
        assert events.told() == []
        token = captured_mail.token_for("new@example.com")
        await client.post("/api/v1/auth/verify-email", json={"token": token})

        assert events.told() == [("email_address_changed", by(user.id)), ("email_address_verified", by(user.id))]

    async def test_a_reset_password(
        self,
        client: httpx.AsyncClient,
        events: RecordedEvents,
        user: User,
        drain: Drain,
        captured_mail: CapturedMail,
    ) -> None:
        for address in (user.email, "nobody@example.com"):
            await client.post("/api/v1/auth/restore-password", json={"email": address})
        assert events.told() == [
            ("password_reset_requested", {"user_id": user.id, "actor_id": None}),
            ("password_reset_requested", {"user_id": None, "actor_id": None}),
        ]

        await drain()
        reset = {"token": captured_mail.token_for(user.email), "new_password": "another good one"}
        assert (await client.post("/api/v1/auth/reset-password", json=reset)).status_code == 204
        assert (await client.post("/api/v1/auth/reset-password", json=reset)).status_code == 422

        assert events.told() == [("password_reset_completed", by(user.id))]

    async def test_its_end(self, client: httpx.AsyncClient, events: RecordedEvents, user: User) -> None:
        await client.request("DELETE", "/api/v1/profile", json={"current_password": PASSWORD})

        assert events.told() == [("user_deleted", by(user.id))]


class TestAdministration:
    @pytest.fixture
    async def admin(self, user: User, db: AsyncSession) -> User:
        await UserRepository().change(db=db, user=user, is_superuser=True)
        await db.commit()
        return user

    async def test_making_and_deleting(self, client: httpx.AsyncClient, events: RecordedEvents, admin: User) -> None:
        account = {"email": "ann@example.com", "username": "ann", "password": PASSWORD}

        user_id = (await client.post("/api/v1/users", json=account)).json()["data"]["id"]
        await client.delete(f"/api/v1/users/{user_id}")

        assert events.told() == [("user_created", by(admin.id, user_id)), ("user_deleted", by(admin.id, user_id))]

    async def test_making_a_superuser(self, client: httpx.AsyncClient, events: RecordedEvents, admin: User) -> None:
        account = {"email": "ann@example.com", "username": "ann", "password": PASSWORD, "is_superuser": True}

        user_id = (await client.post("/api/v1/users", json=account)).json()["data"]["id"]

        assert events.told() == [
            ("user_created", by(admin.id, user_id)),
            ("role_granted", by(admin.id, user_id, role="admin")),
            ("superuser_changed", by(admin.id, user_id, is_superuser=True)),
        ]

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"username": "renamed"}, []),
            ({"email": "new@example.com"}, [("email_address_changed", {})]),
            ({"status_id": 2}, [("user_status_changed", {"status_id": 2})]),
            (
                {"is_superuser": True},
                [("role_granted", {"role": "admin"}), ("superuser_changed", {"is_superuser": True})],
            ),
        ],
    )
    async def test_changing(
        self,
        client: httpx.AsyncClient,
        events: RecordedEvents,
        admin: User,
        changes: dict[str, Any],
        expected: Told,
    ) -> None:
        other = await UserFactory.create(is_verified=False)

        for _ in range(2):  # the second time nothing is different
            assert (await client.patch(f"/api/v1/users/{other.id}", json=changes)).status_code == 200

        assert events.told() == [
            ("user_updated", by(admin.id, other.id, fields=list(changes))),
            *((name, by(admin.id, other.id, **facts)) for name, facts in expected),
        ]

    async def test_what_is_refused_is_not_told(
        self, client: httpx.AsyncClient, events: RecordedEvents, admin: User
    ) -> None:
        other = await UserFactory.create()

        assert (await client.patch(f"/api/v1/users/{other.id}", json={"username": admin.username})).status_code == 409
        assert (await client.delete(f"/api/v1/users/{admin.id}")).status_code == 409

        assert events.told() == []
