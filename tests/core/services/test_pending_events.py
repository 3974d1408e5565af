"""Events dispatched where no unit of work is: stored before the answer leaves, or before the job ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, HTTPException
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import StreamingResponse

from app.core.db import Database
from app.core.db.jobs import Job
from app.core.deps import DBSession, EventsService
from app.core.exceptions import ConflictError
from app.core.runtime import Runtime
from app.core.services.background import Background, current_pending, pending_work, write_after_unit
from app.core.services.events import EventsService as Events
from app.core.services.events.interface import current_events
from tests.core.api.conftest import make_app
from tests.core.api.test_errors import check
from tests.core.log.capture import captured_log
from tests.core.services.stage import CurtainRaised, Play, Stage

Drain = Callable[[], Awaitable[int]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]

router = APIRouter(prefix="/t")


@router.post("/awaited/{how}")
async def awaited(how: str, events: EventsService) -> int:
    events.dispatch(CurtainRaised(act=1))
    if how == "refused":
        raise HTTPException(403)
    if how == "broken":
        raise RuntimeError
    return 1


@router.post("/thread")
def thread(events: EventsService) -> int:
    events.dispatch(CurtainRaised(act=1))
    return 1


@router.post("/after")
async def after(events: EventsService, background: BackgroundTasks) -> int:
    background.add_task(events.dispatch, CurtainRaised(act=1))
    return 1


@router.post("/stream")
async def stream(events: EventsService) -> StreamingResponse:
    async def rows() -> AsyncIterator[str]:
        events.dispatch(CurtainRaised(act=1))
        yield "a"

    return StreamingResponse(rows())


@router.post("/read-afterwards")
async def read_afterwards(events: EventsService, db: DBSession) -> int:
    await db.commit()
    events.dispatch(CurtainRaised(act=1))
    return int((await db.execute(text("SELECT 1"))).scalar_one())


@router.post("/left/{how}")
async def left(how: str) -> int:
    async def conflict() -> None:
        raise ConflictError

    pending = current_pending()
    assert pending
    pending.add(conflict)
    if how == "refused":
        raise HTTPException(403)
    return 1


@router.post("/noted/{how}")
async def noted(how: str, db: DBSession) -> int:
    async def note(db: AsyncSession) -> None:
        await db.execute(text("SELECT no_such_column" if how == "lost" else "SELECT 1"))
        current_events().dispatch(CurtainRaised(act=1))

    write_after_unit(note, "a note was lost")
    if how == "refused":
        raise HTTPException(403)
    return 1


@pytest.fixture
async def http(kit: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app(router), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


class TestWriteAfterUnit:
    @pytest.mark.parametrize(("how", "status"), [("well", 200), ("refused", 403)])
    async def test_written_though_the_unit_of_the_request_was_rolled_back(
        self, http: httpx.AsyncClient, db: AsyncSession, jobs: Jobs, how: str, status: int
    ) -> None:
        assert (await http.post(f"/t/noted/{how}")).status_code == status
        assert [job.payload["data"]["act"] for job in await jobs()] == [1, 1]

    async def test_a_failure_is_logged_and_the_answer_stands(
        self, http: httpx.AsyncClient, db: AsyncSession, jobs: Jobs
    ) -> None:
        with captured_log() as lines:
            assert (await http.post("/t/noted/lost")).status_code == 200
        assert "a note was lost" in str(lines.all())
        assert not await jobs()


class TestRequests:
    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/t/awaited/well", 200),
            ("/t/awaited/refused", 403),
            ("/t/awaited/broken", 500),
            ("/t/thread", 200),
            ("/t/stream", 200),
            ("/t/read-afterwards", 200),
        ],
    )
    async def test_stored_when_the_answer_is_here(
        self, http: httpx.AsyncClient, db: AsyncSession, jobs: Jobs, path: str, status: int
    ) -> None:
        assert (await http.post(path)).status_code == status
        assert [job.payload["data"]["act"] for job in await jobs()] == [1, 1]

    async def test_drain_waits_for_what_comes_after_the_answer(
        self, http: httpx.AsyncClient, db: AsyncSession, drain: Drain, scene: Stage
    ) -> None:
        await http.post("/t/after")
        assert await drain() == 2
        assert [event.data.act for event in scene.values("first")] == [1]

    @pytest.mark.parametrize("path", ["/t/awaited/well", "/t/awaited/refused", "/t/awaited/broken", "/t/stream"])
    async def test_what_cannot_be_stored_is_a_503(
        self, kit: Runtime, http: httpx.AsyncClient, db: AsyncSession, jobs: Jobs, tmp_path: Path, path: str
    ) -> None:
        stored, kit.database = kit.database, Database.connect(make_url(f"sqlite+aiosqlite:///{tmp_path}/no/where.db"))
        try:
            with captured_log() as lines:
                answer = await http.post(path, headers={"X-Request-ID": "mine"})
        finally:
            await kit.database.close()
            kit.database = stored
        assert check(answer, 503, "unavailable")["request_id"] == "mine"
        assert "unable to open database file" in lines.one("request")["exception"]
        assert await jobs() == []

    @pytest.mark.parametrize("how", ["well", "refused"])
    async def test_no_error_of_what_was_left_is_the_clients(self, http: httpx.AsyncClient, how: str) -> None:
        with captured_log() as lines:
            check(await http.post(f"/t/left/{how}"), 500, "internal_error")
        assert "ConflictError" in lines.one("request")["exception"]


class TestJobs:
    async def test_stored_before_the_job_is_completed(
        self, kit: Runtime, db: AsyncSession, drain: Drain, scene: Stage, jobs: Jobs
    ) -> None:
        async def dispatch() -> None:
            kit.events.dispatch(CurtainRaised(act=3))

        scene.scenes["play"] = dispatch
        await kit.queue.push(Play, {"number": 1})
        assert await drain() == 3
        assert [event.data.act for event in scene.values("first")] == [3]

    async def test_a_job_whose_event_cannot_be_stored_has_failed(
        self, kit: Runtime, committed: Database, scene: Stage, jobs: Jobs, tmp_path: Path
    ) -> None:
        away = Database.connect(make_url(f"sqlite+aiosqlite:///{tmp_path}/no/where.db"))

        async def dispatch() -> None:
            Events(lambda: away, kit.waker, kit.background).dispatch(CurtainRaised(act=3))

        scene.scenes["play"] = dispatch
        await kit.queue.push(Play, {"number": 1})
        await kit.runner.drain()
        await away.close()
        [job] = await jobs()
        assert (job.status, job.attempts) == ("failed", 1)
        assert "unable to open database file" in (job.last_error or "")


class TestPendingWork:
    async def test_in_order_and_only_while_it_is_open(self) -> None:
        done: list[int] = []

        async def work(number: int) -> None:
            await asyncio.sleep(0)
            done.append(number)

        assert current_pending() is None
        with pending_work() as pending:
            for number in range(3):
                pending.add(partial(work, number))
            assert current_pending() is pending
            await pending.finish()
            assert current_pending() is None
        assert done == [0, 1, 2]

    async def test_one_that_fails_keeps_no_other_from_being_done(self) -> None:
        done: list[int] = []

        async def work(number: int) -> None:
            if number:
                raise LookupError(number)
            done.append(number)

        with pending_work() as pending, captured_log() as lines:
            for number in (1, 0, 2, 0):
                pending.add(partial(work, number))
            with pytest.raises(LookupError, match="1"):
                await pending.finish()
        assert done == [0, 0]
        assert "LookupError: 2" in lines.one("pending work of a request or job failed")["exception"]

    async def test_idle_waits_for_what_the_background_does(self) -> None:
        background, done = Background(), asyncio.Event()

        async def work() -> None:
            await asyncio.sleep(0)
            done.set()

        background.spawn(work(), "never")
        await background.idle()
        assert done.is_set()
