"""What `app.state.kit` does for a package."""

import importlib.util
import inspect
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import DateTime, String, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.core.configs import PROJECT_ROOT, AppConfig, app_config
from app.core.db.session import Database, current_session
from app.core.deps import DBSession
from app.core.kit import Kit, KitSettings
from app.core.runtime import runtime
from app.core.services.events import BaseEvent, ListenedEvent
from app.core.services.events.interface import listeners
from app.core.services.queue import PurgeJobs, TaskDataError
from app.core.services.queue.registry import UnknownTask
from tests.factories.user import UserFactory
from tests.utils import CapturedMail, login_user

Drain = Callable[[], Awaitable[int]]


class Base(DeclarativeBase):
    """The base of a package."""


class Visit(Base):
    """A table of a package."""

    __tablename__ = "kit_test_visits"

    id: Mapped[int] = mapped_column(primary_key=True)
    guest: Mapped[str] = mapped_column(String(20))
    came_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class VisitRead(BaseModel):
    """What is shown of it."""

    id: int
    guest: str


class VisitMade(BaseEvent):
    """The service's own idea of what a package tells."""

    __event_name__ = "kit_test_visit_made"
    guest: str


@pytest.fixture
def kit(app: FastAPI) -> Kit:
    """The kit of the running application."""
    found = app.state.kit
    assert isinstance(found, Kit)
    return found


@pytest.fixture
def include(app: FastAPI) -> Iterator[Callable[[APIRouter], None]]:
    """Mount a router until the test ends."""
    before = list(app.router.routes)
    yield lambda router: app.include_router(router, prefix="/visits")
    app.router.routes[:] = before


@pytest.fixture
def heard() -> Iterator[list[ListenedEvent[VisitMade]]]:
    """What the service's listener hears of `VisitMade`."""
    events: list[ListenedEvent[VisitMade]] = []

    async def hear(event: ListenedEvent[VisitMade]) -> None:
        events.append(event)

    listeners.add(VisitMade, hear, durable=True)
    yield events
    del listeners._listeners[f"{hear.__module__}:{hear.__qualname__}"]


class TestTypes:
    @pytest.fixture
    def copied(self) -> ModuleType:
        """The types that packages copy."""
        path = PROJECT_ROOT / "examples" / "shop_reviews" / "shop_reviews" / "kit.py"
        spec = importlib.util.spec_from_file_location("copied_kit", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def test_the_example_copies_all_of_the_kit(self, copied: ModuleType) -> None:
        def members(kind: type) -> set[str]:
            return {name for name in vars(kind) if not name.startswith("_")}

        assert members(copied.Kit) - {"settings"} == members(Kit)  # which is set by its __init__
        assert members(copied.Settings) == set(KitSettings.__dataclass_fields__)

    def test_with_the_same_parameters(self, copied: ModuleType) -> None:
        for name, member in vars(copied.Kit).items():
            if inspect.isfunction(member) and not name.startswith("_"):
                ours = [one for one in inspect.signature(getattr(Kit, name)).parameters.values() if one.name != "self"]
                theirs = list(inspect.signature(member).parameters.values())[1:]
                assert [(one.name, one.kind, one.default) for one in theirs] == [
                    (one.name, one.kind, one.default) for one in ours
                ], name


class TestSettings:
    def test_they_are_those_of_the_application(self) -> None:
        chosen = AppConfig(PROJECT_NAME="House", DOMAIN="house.example")
        assert Kit(chosen).settings == KitSettings(
            "House", app_config.ENVIRONMENT.value, "house.example", str(chosen.FRONTEND_URL), "/api/v1"
        )


class TestDependencies:
    @pytest.fixture
    def visits(self, kit: Kit, include: Callable[[APIRouter], None]) -> None:
        """Routes as a package makes them."""
        router = APIRouter()
        Session = Annotated[AsyncSession, Depends(kit.db_session, scope="function")]  # noqa: N806  a type
        User = Annotated[Any, Depends(kit.active_user)]  # noqa: N806  a type

        @router.post("")
        async def visit(db: Session, user: User, ours: DBSession) -> dict[str, Any]:
            assert db is ours
            assert db is current_session()
            return {"id": user.id, "username": user.username, "email": user.email}

        include(router)

    async def test_a_request_has_one_unit_of_work_and_knows_its_user(
        self, visits: None, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        user = await UserFactory.create()
        await login_user(client, user)
        answer = await client.post("/visits")
        assert answer.json() == {"id": user.id, "username": user.username, "email": user.email}

    async def test_without_a_user_it_is_refused_as_everywhere(
        self, visits: None, client: httpx.AsyncClient, db: AsyncSession
    ) -> None:
        answer = await client.post("/visits")
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    async def test_a_unit_outside_a_request(self, kit: Kit, committed: Database) -> None:
        async with kit.session_scope() as session:
            await UserFactory.create(username="kitty")
            assert current_session() is session
        async with kit.session_scope(read_only=True) as session:
            assert await session.scalar(text("SELECT count(*) FROM auth_users")) is not None


class TestLists:
    @pytest.fixture
    async def visits(self, kit: Kit, include: Callable[[APIRouter], None], committed: Database) -> None:
        """A list of a package, with three rows."""
        router = APIRouter()
        visit_page = kit.list_of(Visit, VisitRead, sort=("id", "guest", "came_at"), filters=("id", "guest", "came_at"))

        @router.get("", response_model=kit.page_of(VisitRead))
        async def visits(page: Annotated[Any, Depends(visit_page)]) -> Any:
            return page

        include(router)
        async with committed.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with kit.session_scope() as session:
            for number, guest in enumerate(["ann", "bob", "cleo"], start=1):
                session.add(Visit(id=number, guest=guest, came_at=datetime(2026, 1, number, tzinfo=UTC)))

    @pytest.mark.parametrize(
        ("query", "guests"),
        [
            ("", ["ann", "bob", "cleo"]),
            ("sort=guest:desc", ["cleo", "bob", "ann"]),
            ("sort=came_at:desc&per_page=1&page=2", ["bob"]),
            ("filters=guest:[ann,cleo]", ["ann", "cleo"]),
            ("filters=came_at__gte:2026-01-02T00:00:00Z", ["bob", "cleo"]),
            ("filters=guest__ilike:O", ["bob", "cleo"]),
        ],
    )
    async def test_they_speak_the_grammar(
        self, visits: None, client: httpx.AsyncClient, query: str, guests: list[str]
    ) -> None:
        answer = await client.get(f"/visits?{query}")
        assert [visit["guest"] for visit in answer.json()["data"]] == guests
        assert answer.json()["data"][0].keys() == {"id", "guest"}
        assert "Link" in answer.headers

    async def test_they_are_walked_by_cursor(self, visits: None, client: httpx.AsyncClient) -> None:
        cursor, found = "", []
        while cursor is not None:
            answer = (await client.get("/visits", params={"cursor": cursor, "per_page": 2, "sort": "guest"})).json()
            found += [visit["guest"] for visit in answer["data"]]
            cursor = answer["meta"]["pagination"]["next_cursor"]
        assert found == ["ann", "bob", "cleo"]

    async def test_what_was_not_declared_is_refused(self, visits: None, client: httpx.AsyncClient) -> None:
        answer = await client.get("/visits?filters=secret:1")
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["query", "filters"])

    def test_a_field_that_is_no_column_stops_the_start(self, kit: Kit) -> None:
        with pytest.raises(TypeError, match="names no column: colour"):
            kit.list_of(Visit, VisitRead, sort=("colour",), filters=("id",))


class TestServices:
    async def test_each_has_a_cache_of_its_own(self, kit: Kit) -> None:
        one, two = kit.cache("one"), kit.cache("two")
        await one.set("key", {"is": 1}, ttl=60)
        await two.set("key", {"is": 2}, ttl=60)
        assert await one.get("key") == {"is": 1}
        assert await runtime().cache.namespace("one").get("key") == {"is": 1}
        await one.delete("key")
        assert (await one.get("key"), await two.get("key")) == (None, {"is": 2})

    async def test_a_task_is_pushed_by_its_name(self, kit: Kit, db: AsyncSession, drain: Drain) -> None:
        assert await kit.push(PurgeJobs.__task_name__) is not None
        assert await drain() == 1

    async def test_a_task_that_is_not_there(self, kit: Kit, db: AsyncSession) -> None:
        with pytest.raises(UnknownTask):
            await kit.push("nobody.knows")
        with pytest.raises(TaskDataError):
            await kit.push(PurgeJobs.__task_name__, {"unknown": 1})

    async def test_an_event_reaches_who_listens_to_its_name(
        self, kit: Kit, committed: Database, drain: Drain, heard: list[ListenedEvent[VisitMade]]
    ) -> None:
        async with kit.session_scope():
            kit.dispatch("kit_test_visit_made", {"guest": "ann"})
            kit.dispatch("nobody_listens", {})
            assert heard == []
        assert await drain() == 1
        assert [event.data for event in heard] == [VisitMade(guest="ann")]

    async def test_a_mail_shows_the_view_of_the_package(
        self, kit: Kit, db: AsyncSession, drain: Drain, captured_mail: CapturedMail, tmp_path: Path
    ) -> None:
        view = tmp_path / "thanks.html"
        view.write_text("<p>Thanks, {{ name }}!</p>")
        await kit.send_mail(to=["ann@example.com"], subject="Thanks", view=view, values={"name": "Ann & Bob"})
        await drain()
        (mail,) = captured_mail.to("ann@example.com")
        html = mail.get_body(("html",))
        assert (mail["Subject"], html and html.get_content().strip()) == ("Thanks", "<p>Thanks, Ann &amp; Bob!</p>")
