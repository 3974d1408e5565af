"""Dependencies of tasks and listeners."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated

import pytest
from fastapi import Depends, Header, Query, Request
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database, current_session
from app.core.deps import CacheService, DBSession, EventsService, MailService, QueueService, queued
from app.core.exceptions import ConfigError
from app.core.runtime import Runtime
from app.core.services.queue import BaseTask, TaskDataError, call_with_dependencies
from app.core.services.queue.registry import TaskRegistry
from tests.core.services.conftest import change
from tests.core.services.stage import CurtainRaised, Play, Stage, stage

Drain = Callable[[], Awaitable[int]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]

steps: list[str] = []


@pytest.fixture(autouse=True)
def no_steps() -> None:
    steps.clear()


def follow(name: str) -> Callable[[], AsyncIterator[str]]:
    """A dependency that notes its beginning and how it ended."""

    async def dependency() -> AsyncIterator[str]:
        steps.append(f"{name} begins")
        try:
            yield name
        except BaseException as exc:
            steps.append(f"{name} sees {type(exc).__name__}")
            raise
        steps.append(f"{name} ends")

    return dependency


Base = Annotated[str, Depends(follow("base"))]


async def upper(base: Base) -> AsyncIterator[str]:
    steps.append("upper begins")
    yield f"upper on {base}"
    steps.append("upper ends")
    if "refuse" in steps:
        raise LookupError("commit failed")


Upper = Annotated[str, Depends(upper)]


def in_thread() -> Iterator[int]:
    yield threading.get_ident()
    steps.append("thread ends")


class Settings:
    def __init__(self, base: Base) -> None:
        self.base = base


class Called:
    async def __call__(self) -> str:
        return "called"


@queued
class Perform(BaseTask):
    """Asks for all there is; its unit of work plays the act of that number."""

    __task_name__ = "test.perform"
    max_attempts = 1

    async def run(
        self,
        number: int,
        db: DBSession,
        mail: MailService,
        cache: CacheService,
        events: EventsService,
        queue: QueueService,
    ) -> bool:
        events.dispatch(CurtainRaised(act=number))
        await queue.push(Play, {"number": number})
        await stage.enter("perform", number)
        return current_session() is db and await db.scalar(select(Job.id)) is not None


class TestTask:
    async def test_has_a_unit_of_work_that_commits_when_it_returns(
        self, kit: Runtime, committed: Database, drain: Drain, scene: Stage
    ) -> None:
        number = await kit.queue.push(Perform, {"number": 7})
        assert number is not None
        await drain()
        assert await kit.queue.get_result(number) is True
        assert scene.values("play") == [7]
        assert [event.data.act for event in scene.values("first")] == [7]

    async def test_has_a_unit_of_work_that_rolls_back_when_it_fails(
        self, kit: Runtime, committed: Database, drain: Drain, jobs: Jobs, scene: Stage
    ) -> None:
        await kit.queue.push(Perform, {"number": 7})
        scene.fails("perform", LookupError("shelf 7"))
        assert await drain() == 1
        assert [(job.status, job.last_error) for job in await jobs()] == [(JobStatus.DEAD, "LookupError: shelf 7")]

    async def test_takes_no_dependency_from_the_data(self, kit: Runtime, db: AsyncSession) -> None:
        with pytest.raises(TaskDataError, match="db: Extra inputs"):
            await kit.queue.push(Perform, {"number": 1, "db": 1})

    def test_may_run_by_the_clock(self) -> None:
        class Sweep(BaseTask):
            __task_name__ = "test.sweep"
            __schedule__ = "* * * * *"

            async def run(self, db: DBSession) -> None: ...

        TaskRegistry().add(Sweep)

    async def test_that_waited_for_another_attempt_gets_new_ones(
        self, kit: Runtime, committed: Database, drain: Drain, scene: Stage
    ) -> None:
        await kit.queue.push(Perform, {"number": 7})
        await change(kit, max_attempts=2)
        scene.fails("perform", LookupError())
        await drain()
        scene.scenes.clear()
        async with kit.database.session_scope() as session:
            (job,) = await session.scalars(select(Job))
            job.available_at = job.created_at
        await drain()
        assert scene.values("play") == [7]


class TestCall:
    async def test_what_is_given_comes_first_and_each_dependency_is_made_once(self) -> None:
        async def work(given: int, *, one: Upper, base: Base, other: Upper, named: str = "") -> tuple[object, ...]:
            return given, one, base, other, named

        assert await call_with_dependencies(work, 1, named="x") == (1, "upper on base", "base", "upper on base", "x")
        assert steps == ["base begins", "upper begins", "upper ends", "base ends"]

    async def test_may_ask_for_each_kind(self) -> None:
        async def plain() -> str:
            return "plain"

        async def work(
            thread: Annotated[int, Depends(in_thread)],
            settings: Annotated[Settings, Depends()],
            called: Annotated[str, Depends(Called())],
            awaited: str = Depends(plain),
        ) -> None:
            steps.append(f"{thread == threading.get_ident()} {settings.base} {called} {awaited}")

        await call_with_dependencies(work)
        assert steps == ["base begins", "False base called plain", "base ends", "thread ends"]

    async def test_without_the_cache_each_is_its_own(self) -> None:
        fresh = Annotated[str, Depends(follow("fresh"), use_cache=False)]

        async def work(one: fresh, other: fresh) -> None: ...

        await call_with_dependencies(work)
        assert steps == ["fresh begins", "fresh begins", "fresh ends", "fresh ends"]

    async def test_a_failure_is_told_to_all(self) -> None:
        async def work(one: Upper) -> None:
            raise LookupError("of the work")

        with pytest.raises(LookupError, match="of the work"):
            await call_with_dependencies(work)
        assert steps == ["base begins", "upper begins", "base sees LookupError"]

    async def test_a_failing_end_is_told_to_those_that_began_before(self) -> None:
        async def work(one: Upper) -> None:
            steps.append("refuse")

        with pytest.raises(LookupError, match="commit failed"):
            await call_with_dependencies(work)
        assert steps == ["base begins", "upper begins", "refuse", "upper ends", "base sees LookupError"]

    async def test_a_swallowed_failure_is_no_success(self) -> None:
        async def careless() -> AsyncIterator[None]:
            with suppress(LookupError):
                yield

        async def work(careless: Annotated[None, Depends(careless)]) -> None:
            raise LookupError

        with pytest.raises(RuntimeError, match=r"work swallowed"):
            await call_with_dependencies(work)


class TestRegistration:
    async def from_request(self, request: Request) -> None: ...

    async def from_header(self, agent: Annotated[str, Header()]) -> None: ...

    async def from_query(self, page: int = Query(1)) -> None: ...

    @pytest.mark.parametrize("name", ["from_request", "from_header", "from_query"])
    def test_what_needs_a_request_is_refused(self, name: str) -> None:
        dependency = getattr(self, name)

        async def outer(inner: Annotated[None, Depends(dependency)]) -> None: ...

        class Ask(BaseTask):
            __task_name__ = "test.ask"

            async def run(self, wish: Annotated[None, Depends(outer)]) -> None: ...

        with pytest.raises(ConfigError, match=rf"Ask\.run asks for 'wish': .*{name} takes '\w+' from a request"):
            TaskRegistry().add(Ask)
