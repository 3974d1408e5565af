"""Listing security events: who may, and what can be asked."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.audit.models import AuditEvent, Outcome
from app.core.db import utcnow
from tests.auth.fixtures import AsUser
from tests.factories.audit_event import AuditEventFactory
from tests.factories.user import UserFactory
from tests.utils import login_user

URL = "/api/v1/audit/events"


@pytest.fixture
async def admin_id(db: AsyncSession, client: httpx.AsyncClient) -> int:
    """A logged-in user who may read the audit log."""
    admin = await UserFactory.create(username="admin", is_superuser=True)
    await login_user(client, admin)
    return admin.id


async def found(client: httpx.AsyncClient, query: str) -> list[int]:
    """The ids a query gives, in their order."""
    answer = await client.get(f"{URL}?{query}")
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["data"]]


class TestPermission:
    @pytest.mark.parametrize("path", [URL, f"{URL}/1"])
    async def test_not_without_a_token(self, db: AsyncSession, client: httpx.AsyncClient, path: str) -> None:
        assert (await client.get(path)).status_code == 401

    @pytest.mark.parametrize("path", [URL, f"{URL}/1"])
    async def test_not_without_the_permission(self, db: AsyncSession, as_user: AsUser, path: str) -> None:
        answer = await (await as_user()).get(path)

        assert (answer.status_code, answer.json()["code"]) == (403, "action_not_allowed")

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    async def test_nobody_changes_what_happened(self, admin_id: int, client: httpx.AsyncClient, method: str) -> None:
        event = await AuditEventFactory.create()

        assert (await client.request(method, f"{URL}/{event.id}", json={})).status_code == 405


class TestRead:
    async def test_all_of_it(self, admin_id: int, client: httpx.AsyncClient) -> None:
        event = await AuditEventFactory.create(
            subject_id=admin_id,
            actor_id=None,
            kind="login_failed",
            outcome=Outcome.FAILURE,
            details={"reason": "wrong_password"},
            occurred_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
        )

        answer = await client.get(f"{URL}/{event.id}")

        assert answer.status_code == 200
        assert answer.json()["data"] == {
            "id": event.id,
            "event_id": str(event.event_id),
            "kind": "login_failed",
            "outcome": "failure",
            "actor_id": None,
            "subject_id": admin_id,
            "address": event.address,
            "user_agent": event.user_agent,
            "request_id": event.request_id,
            "conversation_id": "conversation",
            "occurred_at": "2026-01-31T12:00:00Z",
            "details": {"reason": "wrong_password"},
            "actor_username": None,
            "subject_username": "admin",
        }
        assert (await client.get(URL)).json()["data"] == [answer.json()["data"]]

    async def test_the_absent_is_not_found(self, admin_id: int, client: httpx.AsyncClient) -> None:
        answer = await client.get(f"{URL}/{2**63 - 1}")

        assert (answer.status_code, answer.json()["code"]) == (404, "audit_event_not_found")

    @pytest.mark.parametrize("path", ["0", "-1", "abc", "1.5", str(2**63), "9" * 500, "%00", "%ff"])
    async def test_what_is_no_id_is_no_500(self, admin_id: int, client: httpx.AsyncClient, path: str) -> None:
        assert (await client.get(f"{URL}/{path}")).status_code in (404, 422)

    async def test_users_who_are_deleted_keep_their_id(self, admin_id: int, client: httpx.AsyncClient) -> None:
        gone = await UserFactory.create(deleted_at=utcnow())
        await AuditEventFactory.create(subject_id=gone.id, actor_id=admin_id)

        (item,) = (await client.get(URL)).json()["data"]

        assert (item["subject_id"], item["subject_username"], item["actor_username"]) == (gone.id, None, "admin")


class TestList:
    @pytest.fixture
    async def events(self, admin_id: int) -> list[AuditEvent]:
        """Five events, an hour apart, the last one now."""
        now = utcnow()
        several: list[dict[str, Any]] = [
            {"kind": "user_created", "subject_id": 7, "actor_id": None},
            {"kind": "login_failed", "subject_id": 7, "actor_id": None, "outcome": Outcome.FAILURE},
            {"kind": "login_succeeded", "subject_id": 7, "address": "198.51.100.1"},
            {"kind": "user_status_changed", "subject_id": 8, "actor_id": 7},
            {"kind": "login_failed", "subject_id": None, "outcome": Outcome.FAILURE},
        ]
        return [
            await AuditEventFactory.create(**values, occurred_at=now - timedelta(hours=4 - number))
            for number, values in enumerate(several)
        ]

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ("kind:login_failed", [1, 4]),
            ("kind:[user_created,login_succeeded]", [0, 2]),
            ("kind__ilike:LOGIN", [1, 2, 4]),
            ("outcome:failure", [1, 4]),
            ("outcome__ne:failure", [0, 2, 3]),
            ("actor_id:7", [2, 3]),
            ("subject_id:7", [0, 1, 2]),
            ("subject_id__null:true", [4]),
            ("subject_id:7,outcome:failure", [1]),
            ("address:198.51.100.1", [2]),
            ("conversation_id:conversation", [0, 1, 2, 3, 4]),
        ],
    )
    async def test_filters(
        self, client: httpx.AsyncClient, events: list[AuditEvent], filters: str, expected: list[int]
    ) -> None:
        assert await found(client, f"filters={filters}") == [events[number].id for number in expected]

    async def test_filters_by_what_is_known_of_one(self, client: httpx.AsyncClient, events: list[AuditEvent]) -> None:
        for field in ("id", "event_id", "request_id"):
            assert await found(client, f"filters={field}:{getattr(events[2], field)}") == [events[2].id]

    async def test_a_range_of_time(self, client: httpx.AsyncClient, events: list[AuditEvent]) -> None:
        begin, end = (f"{events[number].occurred_at:%Y-%m-%dT%H:%M:%S.%fZ}" for number in (1, 3))

        inside = await found(client, f"filters=occurred_at__gte:{begin},occurred_at__lt:{end}")

        assert inside == [events[1].id, events[2].id]

    async def test_sorts(self, client: httpx.AsyncClient, events: list[AuditEvent]) -> None:
        ids = [event.id for event in events]

        assert await found(client, "sort=occurred_at:desc") == ids[::-1]
        assert await found(client, "sort=outcome:desc,id:desc") == [ids[3], ids[2], ids[0], ids[4], ids[1]]
        assert await found(client, "sort=kind") == [ids[1], ids[4], ids[2], ids[0], ids[3]]

    async def test_pages(self, client: httpx.AsyncClient, events: list[AuditEvent]) -> None:
        answer = await client.get(f"{URL}?per_page=2&page=3")

        assert [item["id"] for item in answer.json()["data"]] == [events[4].id]
        assert answer.json()["meta"] == {"pagination": {"total": 5, "page": 3, "per_page": 2}}
        assert answer.headers["X-Total-Count"] == "5"

    @pytest.mark.parametrize("order", ["asc", "desc"])
    @pytest.mark.parametrize("field", ["id", "occurred_at", "kind", "outcome"])
    async def test_a_walk_by_cursor_meets_each_once(
        self, client: httpx.AsyncClient, events: list[AuditEvent], field: str, order: str
    ) -> None:
        met, cursor = [], ""
        while cursor is not None:
            answer = await client.get(f"{URL}?sort={field}:{order}&per_page=2&cursor={cursor}")
            assert answer.status_code == 200, answer.text
            met += [item["id"] for item in answer.json()["data"]]
            cursor = answer.json()["meta"]["pagination"]["next_cursor"]
        assert sorted(met) == [event.id for event in events]

    @pytest.mark.parametrize(
        "query",
        [
            "sort=details",
            "sort=actor_id",
            "sort=user_agent",
            "filters=details:x",
            "filters=user_agent:x",
            "filters=actor_username:admin",
            "filters=outcome:maybe",
            "filters=outcome:SUCCESS",
            "filters=outcome__gt:failure",
            "filters=actor_id:one",
            "filters=actor_id:99999999999999999999",
            "filters=event_id:1",
            "filters=occurred_at:yesterday",
            "filters=occurred_at:2026-02-30T00:00:00Z",
            "filters=occurred_at__ilike:2026",
            "filters=kind:%00",
            "filters=kind:%ff",
            "filters=kind",
            "cursor=x",
            "page=1&cursor=",
            "sort=kind,id&cursor=",
            "per_page=101",
        ],
    )
    async def test_what_may_not_be_asked(self, admin_id: int, client: httpx.AsyncClient, query: str) -> None:
        answer = await client.get(f"{URL}?{query}")

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["query", query.partition("=")[0]]

    @pytest.mark.parametrize("value", ["' OR 1=1--", "%25", "_", "\\\\", "x" * 5000, "{{7*7}}", "<b>", "🦄"])
    async def test_hostile_values_find_nothing(
        self, client: httpx.AsyncClient, events: list[AuditEvent], value: str
    ) -> None:
        assert await found(client, str(httpx.QueryParams({"filters": f"kind:{value}"}))) == []
