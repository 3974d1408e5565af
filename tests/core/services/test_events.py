"""Dispatching: delivered if and only if the transaction commits, each listener on its own."""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel as PydanticModel
from pydantic import Field, Secret, SecretBytes, SecretStr, computed_field, create_model
from sqlalchemy import select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import Headers
from typing_extensions import TypedDict

from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database, current_session
from app.core.deps import DBSession, listener
from app.core.deps import EventsService as InjectedEvents
from app.core.exceptions import ConfigError
from app.core.runtime import Runtime
from app.core.services.background import Background
from app.core.services.events import BaseEvent, EventDataError, EventsService, ListenedEvent
from app.core.services.events.interface import ListenerRegistry
from app.core.services.log.context import correlation
from tests.conftest import backend
from tests.core.log.capture import captured_log
from tests.core.services.conftest import rolled_back, until
from tests.core.services.stage import CurtainRaised, Stage, first, stage

Drain = Callable[[], Awaitable[int]]
Due = Callable[[], Awaitable[None]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]


def away(folder: Path) -> Database:
    """A database that does not answer."""
    if backend.environment()["REDIS_URL"]:
        return Database.connect(make_url("postgresql+psycopg://nobody@127.0.0.1:1/nothing"))
    return Database.connect(make_url(f"sqlite+aiosqlite:///{folder}/missing/app.db"))


class Tree(PydanticModel):
    height: float
    name: str


class Scenery(BaseEvent):
    """Everything that is hard to store."""

    price: Decimal = Decimal(0)
    at: datetime | None = None
    colours: dict[str, tuple[int, ...]] = Field(default={})
    scale: float = 0
    trees: tuple[Tree, ...] = ()
    camel_case: int = Field(default=0, alias="camelCase")
    anything: Any = None

    @computed_field  # type: ignore[prop-decorator]  # as pydantic documents it
    @property
    def size(self) -> int:
        return len(self.trees)


@listener(Scenery)
async def scenery(event: ListenedEvent[Scenery]) -> None:
    await stage.enter("scenery", event)


class Rehearsed(BaseEvent):
    name: str


@listener(Rehearsed)
async def rehearse(event: ListenedEvent[Rehearsed], db: DBSession, events: InjectedEvents) -> None:
    events.dispatch(CurtainRaised(act=7))
    assert db is current_session()
    await stage.enter(event.data.name, event)


class CurtainTorn(CurtainRaised):
    length: int


@listener(CurtainTorn)
async def mend(event: ListenedEvent[CurtainTorn]) -> None:
    await stage.enter("mend", event)


class Whispered(BaseEvent):
    pass


@listener(Whispered, durable=False)
async def whisper(event: ListenedEvent[Whispered], db: DBSession) -> None:
    await stage.enter("whisper", await db.scalar(select(1)))


class Account(PydanticModel):
    password: SecretStr


@dataclass
class Keys:
    key: SecretStr


class Login(TypedDict):
    password: SecretStr


class Pair(NamedTuple):
    name: str
    account: Account


class Branch(PydanticModel):
    branches: list["Branch"] = []


class TestDispatch:
    async def test_every_listener_hears_it_after_the_commit(
        self, kit: Runtime, committed: Database, drain: Drain, scene: Stage
    ) -> None:
        before = utcnow()
        async with kit.database.session_scope():
            kit.events.dispatch(CurtainRaised(act=2))
            assert await drain() == 0
            assert scene.entries == []
        assert await drain() == 2
        heard: list[ListenedEvent[CurtainRaised]] = scene.values("first") + scene.values("second")
        assert [event.data for event in heard] == [CurtainRaised(act=2), CurtainRaised(act=2)]
        assert {event.name for event in heard} == {"curtain_raised"}
        assert {event.attempt for event in heard} == {1}
        assert len({event.id for event in heard}) == 1
        assert isinstance(heard[0].id, UUID)
        assert before <= heard[0].occurred_at <= utcnow()
        assert not any(entry.in_unit for entry in scene.entries)

    async def test_nobody_hears_what_was_rolled_back(
        self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage
    ) -> None:
        async with rolled_back(kit.database.session_scope()):
            kit.events.dispatch(CurtainRaised(act=1))
        assert await drain() == 0
        await asyncio.sleep(0)
        assert scene.entries == []

    async def test_a_savepoint_that_rolls_back_takes_its_events_along(
        self, kit: Runtime, committed: Database, drain: Drain, scene: Stage
    ) -> None:
        async with kit.database.session_scope() as session:
            kit.events.dispatch(CurtainRaised(act=1))
            async with rolled_back(session.begin_nested()):
                kit.events.dispatch(CurtainRaised(act=2))
            async with session.begin_nested():
                kit.events.dispatch(CurtainRaised(act=3))
            assert scene.entries == []  # the release of a savepoint is no commit
        await drain()
        await until(lambda: len(scene.values("light")) == 2)
        for name in ("first", "second", "light", "other_light"):
            assert [event.data.act for event in scene.values(name)] == [1, 3]

    async def test_outside_a_unit_it_gets_a_transaction_of_its_own(
        self, kit: Runtime, committed: Database, drain: Drain, scene: Stage
    ) -> None:
        kit.events.dispatch(CurtainRaised(act=1))
        await until(lambda: len(scene.values("light")) == 1)
        ran = 0
        async with asyncio.timeout(60):
            while ran < 2:
                ran += await drain()
        assert [event.data.act for event in scene.values("first")] == [1]

    async def test_outside_a_unit_it_is_stored_when_the_database_is_back(
        self, kit: Runtime, committed: Database, jobs: Jobs, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        background, database = Background(), away(tmp_path)
        events = EventsService(lambda: database, kit.waker, background)
        with correlation("request-5", None):
            events.dispatch(CurtainRaised(act=1))
        said = ""

        def complained() -> bool:
            nonlocal said
            said += capfd.readouterr().out
            return "an event could not be stored: trying again" in said

        await until(complained)
        await database.close()
        database = committed
        await background.close(60)
        stored = await jobs()
        assert [job.payload["data"]["act"] for job in stored] == [1, 1]
        assert {job.request_id for job in stored} == {"request-5"}
        assert "lost" not in said + capfd.readouterr().out

    async def test_what_the_process_could_not_store_before_its_end_is_named_in_the_log(
        self, kit: Runtime, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        background, database = Background(), away(tmp_path)
        EventsService(lambda: database, kit.waker, background).dispatch(CurtainRaised(act=1, note="private"))
        await background.close(0.3)
        await database.close()
        said = capfd.readouterr().out
        assert "an event is lost: the process ends before it could be stored" in said
        assert re.search(r"name=curtain_raised event_id=[0-9a-f-]{36}", said)
        assert "private" not in said

    async def test_in_a_read_only_unit_it_is_stored_when_that_ends(
        self, kit: Runtime, committed: Database, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        async with kit.database.session_scope(read_only=True):
            kit.events.dispatch(CurtainRaised(act=1))
        assert len(await jobs()) == 2
        await drain()
        assert len(scene.values("second")) == 1

    async def test_a_read_only_unit_that_fails_tells_nobody(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage
    ) -> None:
        async with rolled_back(kit.database.session_scope(read_only=True)):
            kit.events.dispatch(CurtainRaised(act=1))
        assert await jobs() == []
        await asyncio.sleep(0)
        assert scene.entries == []

    async def test_in_a_unit_that_has_committed_already_it_is_stored_when_that_ends(
        self, kit: Runtime, committed: Database, jobs: Jobs
    ) -> None:
        async with kit.database.session_scope() as session:
            await session.commit()
            kit.events.dispatch(CurtainRaised(act=1))
        assert len(await jobs()) == 2

    async def test_the_log_names_event_and_listener(
        self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage
    ) -> None:
        async with kit.database.session_scope():
            kit.events.dispatch(Scenery())
        with captured_log() as lines:
            await drain()
        line = lines.one("job completed")
        assert (line["task"], line["event_name"]) == ("events.listen", Scenery.__event_name__)
        assert line["listener"] == f"{__name__}:scenery"

    async def test_carries_the_ids_of_the_request(
        self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage
    ) -> None:
        async with kit.database.session_scope():
            with correlation("request-3", "conversation-3"):
                kit.events.dispatch(CurtainRaised(act=1))
        await drain()
        assert {entry.ids for entry in scene.entries if entry.attempt} == {("request-3", "conversation-3")}

    async def test_a_listener_hears_what_extends_its_class_as_what_it_is(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        async with kit.database.session_scope():
            kit.events.dispatch(CurtainTorn(act=1, length=7))
            kit.events.dispatch(CurtainRaised(act=2))
        assert await drain() == 5
        await until(lambda: len(scene.values("light")) == 2)
        torn = CurtainTorn(act=1, length=7)
        for name in ("first", "second", "light", "other_light"):
            assert [(event.name, event.data) for event in scene.values(name)] == [
                ("curtain_torn", torn),
                ("curtain_raised", CurtainRaised(act=2)),
            ]
        assert [event.data for event in scene.values("mend")] == [torn]
        # A process of the version before does not know `kind`: rows it can read must not have it.
        assert ["kind" in job.payload for job in await jobs()] == [True, True, False, False, False]

    async def test_a_class_that_is_gone_is_waited_for(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        kit.events.dispatch(CurtainTorn(act=1, length=7))
        await kit.background.close(10)
        async with kit.database.session_scope() as session:
            for job in await session.scalars(select(Job).where(Job.id == (await jobs())[0].id)):
                job.payload = {**job.payload, "kind": "app.gone.Torn"}
        await drain()
        (waiting,) = [job for job in await jobs() if job.status == JobStatus.FAILED]
        assert waiting.last_error == "UnknownListener: no event is called 'app.gone.Torn': was it renamed or removed?"

    def test_one_made_by_hand_needs_a_name_and_its_data(self) -> None:
        made = ListenedEvent("curtain_raised", CurtainRaised(act=1))
        assert (made.name, made.data.act, made.attempt) == ("curtain_raised", 1, 1)
        assert made.id != ListenedEvent("curtain_raised", CurtainRaised(act=1)).id
        assert utcnow() - made.occurred_at < timedelta(minutes=1)

    async def test_what_is_no_event_is_refused(self, kit: Runtime) -> None:
        with pytest.raises(TypeError, match="dispatch takes an event, not dict"):
            kit.events.dispatch({"act": 1})  # type: ignore[arg-type]  # the mistake

    async def test_an_event_nobody_hears_is_nothing(self, kit: Runtime, db: AsyncSession, jobs: Jobs) -> None:
        class Unheard(BaseEvent):
            number: int

        kit.events.dispatch(Unheard(number=1))
        async with kit.database.session_scope():
            kit.events.dispatch(Unheard(number=1))
        assert await jobs() == []


class TestData:
    async def heard(self, kit: Runtime, drain: Drain, scene: Stage, event: "Scenery") -> "Scenery":
        async with kit.database.session_scope():
            kit.events.dispatch(event)
        await drain()
        (heard,) = scene.values("scenery")
        data = heard.data
        assert isinstance(data, Scenery)
        return data

    async def test_arrives_as_what_it_was(self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage) -> None:
        event = Scenery(
            price=Decimal("1.10"),
            at=utcnow(),
            colours={"red": (1, 2)},
            scale=1e308,
            trees=(Tree(height=0.1, name="\x00 Ünï \ud800"),),
            camelCase=7,
            anything={"big": 10**30},
        )
        assert await self.heard(kit, drain, scene, event) == event

    @pytest.mark.parametrize(
        "event",
        [
            Scenery(anything=object()),
            Scenery(anything=b"\xff"),
            Scenery(scale=math.inf),
            Scenery(trees=(Tree(height=math.nan, name=""),)),
        ],
    )
    async def test_what_json_cannot_hold_is_refused_where_it_is_dispatched(
        self, kit: Runtime, db: AsyncSession, jobs: Jobs, event: Scenery
    ) -> None:
        async with kit.database.session_scope():
            with pytest.raises(EventDataError, match=r"test_events\.Scenery holds what JSON cannot"):
                kit.events.dispatch(event)
        assert await jobs() == []

    async def test_a_value_of_the_wrong_type_is_refused_and_not_quoted(self, kit: Runtime, db: AsyncSession) -> None:
        with pytest.raises(EventDataError) as refused:
            kit.events.dispatch(Scenery.model_construct(scale="private"))  # type: ignore[arg-type]  # the mistake
        assert "private" not in str(refused.value)


class TestSecrets:
    @pytest.mark.parametrize(
        "annotation",
        [
            SecretStr,
            SecretBytes | None,
            Secret[int],
            Annotated[list[dict[str, SecretStr]], "at any depth"],
            Account,
            list[Keys],
            Login | None,
            Pair,
        ],
    )
    def test_a_field_with_a_secret_is_refused_with_its_class(self, annotation: Any) -> None:
        with pytest.raises(ConfigError, match=r"\.Told\.what is a secret, which no row may hold"):
            create_model("Told", __base__=BaseEvent, __module__="app.shop.events", what=annotation)

    def test_a_type_that_contains_itself_is_looked_through_once(self) -> None:
        created = create_model("Grown", __base__=BaseEvent, what=Branch)
        assert created.__event_name__ == "grown"

    def test_a_name_that_is_defined_later_is_looked_up_then(self) -> None:
        class Early(BaseEvent):
            what: "Later"

        class Later(PydanticModel):
            key: SecretStr

        with pytest.raises(ConfigError, match=r"Early\.what is a secret"):
            Early.model_rebuild(_types_namespace={"Later": Later})


class TestRequest:
    @pytest.fixture
    def web(self) -> FastAPI:
        web = FastAPI()

        @web.post("/late")
        async def late(db: DBSession, events: InjectedEvents) -> None:
            await db.commit()
            events.dispatch(CurtainRaised(act=1))

        @web.get("/read")
        async def read(db: DBSession, events: InjectedEvents) -> None:
            events.dispatch(CurtainRaised(act=2))

        @web.post("/broken")
        async def broken(db: DBSession, events: InjectedEvents) -> None:
            events.dispatch(CurtainRaised(act=3))
            raise RuntimeError("after the dispatch")

        return web

    @pytest.fixture
    def http(self, web: FastAPI, committed: Database) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(web, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://test")

    async def test_after_the_last_commit_it_is_stored_before_the_answer_leaves(
        self, http: httpx.AsyncClient, jobs: Jobs
    ) -> None:
        assert (await http.post("/late")).status_code == 200
        assert [job.payload["data"]["act"] for job in await jobs()] == [1, 1]

    async def test_a_get_may_dispatch(self, http: httpx.AsyncClient, jobs: Jobs) -> None:
        assert (await http.get("/read")).status_code == 200
        assert [job.payload["data"]["act"] for job in await jobs()] == [2, 2]

    async def test_a_request_that_fails_dispatches_nothing(self, http: httpx.AsyncClient, jobs: Jobs) -> None:
        assert (await http.post("/broken")).status_code == 500
        assert await jobs() == []


class TestDurableListener:
    async def test_one_that_raises_is_tried_again_and_the_others_are_untouched(
        self, kit: Runtime, db: AsyncSession, drain: Drain, due: Due, jobs: Jobs, scene: Stage
    ) -> None:
        scene.fails("first", RuntimeError("deaf"))
        async with kit.database.session_scope():
            kit.events.dispatch(CurtainRaised(act=1))
        assert await drain() == 2
        assert [(job.status, job.last_error) for job in await jobs()] == [
            (JobStatus.FAILED, "RuntimeError: deaf"),
            (JobStatus.COMPLETED, None),
        ]
        scene.scenes.clear()
        await due()
        assert await drain() == 1
        heard = scene.values("first")
        assert [event.attempt for event in heard] == [1, 2]
        assert heard[0].id == heard[1].id
        assert len(scene.values("second")) == 1

    async def test_one_that_is_gone_leaves_a_dead_job_that_says_so(
        self, kit: Runtime, db: AsyncSession, drain: Drain, jobs: Jobs
    ) -> None:
        async with kit.database.session_scope() as session:
            kit.events.dispatch(CurtainRaised(act=1))
            await session.flush()
            job = (await session.scalars(select(Job).limit(1))).one()
            job.update(payload=job.payload | {"listener": "app.gone:listener"}, max_attempts=1)
        await drain()
        job = next(job for job in await jobs() if job.max_attempts == 1)
        assert job.status == JobStatus.DEAD
        assert (
            job.last_error == "UnknownListener: no listener is called 'app.gone:listener': was it renamed or removed?"
        )


class TestDependencies:
    async def test_a_listener_s_session_commits_when_it_ends_well(
        self, kit: Runtime, committed: Database, drain: Drain, scene: Stage
    ) -> None:
        async with kit.database.session_scope():
            kit.events.dispatch(Rehearsed(name="well"))
        assert await drain() == 3
        assert [event.data.act for event in scene.values("first")] == [7]

    async def test_and_is_rolled_back_when_it_raises(
        self, kit: Runtime, committed: Database, drain: Drain, scene: Stage
    ) -> None:
        scene.fails("badly", RuntimeError("forgot the text"))
        async with kit.database.session_scope():
            kit.events.dispatch(Rehearsed(name="badly"))
        assert await drain() == 1
        assert scene.values("first") == []

    async def test_one_that_is_not_durable_has_them_too(
        self, kit: Runtime, committed: Database, drain: Drain, scene: Stage
    ) -> None:
        async with kit.database.session_scope():
            kit.events.dispatch(Whispered())
        await until(lambda: scene.values("whisper") == [1])


class TestListenerThatIsNotDurable:
    async def test_hears_it_once_after_the_commit_in_this_process(
        self, kit: Runtime, committed: Database, scene: Stage
    ) -> None:
        async with kit.database.session_scope():
            with correlation("request-4", None):
                kit.events.dispatch(CurtainRaised(act=1))
            assert scene.entries == []
        await until(lambda: len(scene.values("light")) == 1)
        entry = next(entry for entry in scene.entries if entry.name == "light")
        assert entry.value.data == CurtainRaised(act=1)
        assert entry.attempt is None
        assert not entry.in_unit

    async def test_one_that_raises_stops_no_other(self, kit: Runtime, committed: Database, scene: Stage) -> None:
        scene.fails("light", RuntimeError("deaf"))
        async with kit.database.session_scope():
            kit.events.dispatch(CurtainRaised(act=1))
        await until(lambda: len(scene.values("other_light")) == 1)
        assert len(scene.values("light")) == 1


class TestRegistration:
    def test_two_listeners_cannot_share_a_name(self) -> None:
        registry = ListenerRegistry()
        registry.add(CurtainRaised, first, durable=True)
        with pytest.raises(ConfigError, match=r"two listeners are called tests\.core\.services\.stage:first"):
            registry.add(CurtainRaised, first, durable=True)

    def test_a_queue_with_a_name_that_is_none_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"stage:first\.queue = 'No name': small letters"):
            ListenerRegistry().add(CurtainRaised, first, durable=True, queue="No name")

    def test_what_cannot_listen_is_refused(self) -> None:
        def plain(event: ListenedEvent[CurtainRaised]) -> None: ...

        with pytest.raises(ConfigError, match="no `async def`"):
            ListenerRegistry().add(CurtainRaised, plain, durable=True)  # type: ignore[arg-type]  # the mistake
        for event in (datetime, BaseEvent):
            with pytest.raises(ConfigError, match="subclass of BaseEvent"):
                ListenerRegistry().add(event, first, durable=True)  # type: ignore[arg-type]  # the mistake

        async def deaf() -> None: ...

        async def greedy(event: ListenedEvent[CurtainRaised], user_id: int) -> None: ...

        for handler in (deaf, greedy):
            with pytest.raises(ConfigError, match="cannot listen: beside its dependencies it must take one parameter"):
                ListenerRegistry().add(CurtainRaised, handler, durable=True)

    def test_a_dependency_that_needs_a_request_is_refused(self) -> None:
        async def headers(request: Request) -> Headers:
            return request.headers

        async def hear(event: ListenedEvent[CurtainRaised], found: Annotated[Headers, Depends(headers)]) -> None: ...

        with pytest.raises(ConfigError, match=r"hear asks for 'found': .* takes 'request' from a request"):
            ListenerRegistry().add(CurtainRaised, hear, durable=True)

    def test_two_events_cannot_share_a_name(self) -> None:
        class Other(BaseEvent):
            __event_name__ = "curtain_raised"

        async def other(event: ListenedEvent[Other]) -> None: ...

        registry = ListenerRegistry()
        registry.add(CurtainRaised, first, durable=True)
        with pytest.raises(ConfigError, match=r"stage\.CurtainRaised and .*Other are both called 'curtain_raised'"):
            registry.add(Other, other, durable=False)

    def test_an_event_is_named_after_its_class_unless_it_says_otherwise(self) -> None:
        class Named(BaseEvent):
            __event_name__ = "theatre.named"

        assert CurtainRaised.__event_name__ == "curtain_raised"
        assert Named.__event_name__ == "theatre.named"
