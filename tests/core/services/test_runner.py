"""The runner in the background: waking, looking, side by side, stopping."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import make_url, select
from sqlalchemy.exc import StatementError

from app.core.db.base import utcnow
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.runtime import Runtime
from app.core.services.queue import JobRunner
from app.core.services.queue.isolation import Isolation
from app.core.services.queue.limits import Queues
from app.core.services.queue.runner import OutcomeWriter
from app.core.services.queue.store import JobStore, completed
from tests.core.services.conftest import change, listening, make_runner, running, until
from tests.core.services.stage import Play, Say, Stage

Drain = Callable[[], Awaitable[int]]
Due = Callable[[], Awaitable[None]]
Jobs = Callable[[], Awaitable[Sequence[Job]]]


class Reachable:
    """The application's database, while it can be reached."""

    def __init__(self, kit: Runtime) -> None:
        self.kit = kit
        self.yes = True
        self.refused = 0

    def __call__(self) -> Database:
        if not self.yes:
            self.refused += 1
            raise OSError("no route to host")
        return self.kit.database


class Wire:
    """A way to a server that can be cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._streams: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def connect(self, port: int = 0) -> int:
        """Lead there; the port that does."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        opened: int = self._server.sockets[0].getsockname()[1]
        return opened

    async def cut(self) -> None:
        """Lead nowhere."""
        if self._server:
            self._server.close()
            for stream in self._streams:
                stream.transport.abort()
            self._streams.clear()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind_writer = await asyncio.open_connection(*self._target)
        self._streams += [writer, behind_writer]
        with suppress(OSError):
            await asyncio.gather(_pump(reader, behind_writer), _pump(behind_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


class TestBackground:
    async def test_runs_what_is_pushed_when_woken(self, kit: Runtime, committed: Database, scene: Stage) -> None:
        async with running(make_runner(kit, poll=60)) as runner:
            assert runner.running
            await kit.queue.push(Play, {"number": 1})
            runner.wake()
            await until(lambda: scene.values("play") == [1])
        assert not runner.running

    async def test_finds_by_looking_what_nobody_woke_it_for(
        self, kit: Runtime, committed: Database, scene: Stage
    ) -> None:
        async with running(make_runner(kit)):
            await kit.queue.push(Play, {"number": 1})
            await until(lambda: scene.values("play") == [1])

    async def test_runs_side_by_side_but_not_more_than_allowed(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage
    ) -> None:
        together, most = 0, 0

        async def count() -> None:
            nonlocal together, most
            together += 1
            most = max(most, together)
            await asyncio.sleep(0.03)
            together -= 1

        scene.scenes["play"] = count
        async with kit.database.session_scope():
            for number in range(9):
                await kit.queue.push(Play, {"number": number})
        # A long pause between looks: a free place must be filled without waiting for the next.
        async with running(make_runner(kit, concurrency=3, poll=60)):
            await until(lambda: len(scene.entries) == 9)
        assert most == 3
        assert {job.status for job in await jobs()} == {JobStatus.COMPLETED}

    async def test_the_heartbeat_keeps_the_lease(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage
    ) -> None:
        ended = asyncio.Event()

        async def outlast_the_lease() -> None:
            await asyncio.sleep(2.5)
            ended.set()

        scene.scenes["play"] = outlast_the_lease
        await kit.queue.push(Play, {"number": 1})
        # A beat takes milliseconds, and a busy machine may be late with it by two thirds of the lease.
        async with running(make_runner(kit, lease=2)), running(make_runner(kit, lease=2)):
            await asyncio.wait_for(ended.wait(), 60)
        assert scene.values("play") == [1]
        assert (await jobs())[0].status == JobStatus.COMPLETED

    async def test_a_lost_lease_ends_the_run(self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage) -> None:
        ended = asyncio.Event()

        async def wait() -> None:
            try:
                await asyncio.sleep(30)
            finally:
                ended.set()

        scene.scenes["play"] = wait
        await kit.queue.push(Play, {"number": 1})
        async with running(make_runner(kit, lease=0.3)):
            await until(lambda: scene.values("play") == [1])
            await change(kit, attempts=2)  # what another runner's claim does
            await asyncio.wait_for(ended.wait(), 20)
        assert (await jobs())[0].attempts == 2

    async def test_stop_waits_for_running_jobs(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage
    ) -> None:
        scene.scenes["play"] = lambda: asyncio.sleep(0.2)
        await kit.queue.push(Play, {"number": 1})
        async with running(make_runner(kit)):
            await until(lambda: scene.values("play") == [1])
        assert (await jobs())[0].status == JobStatus.COMPLETED

    async def test_stop_hands_back_what_outlasts_the_grace_time(
        self, kit: Runtime, committed: Database, jobs: Jobs, drain: Drain, scene: Stage
    ) -> None:
        scene.scenes["play"] = lambda: asyncio.sleep(30)
        await kit.queue.push(Play, {"number": 1})
        async with running(make_runner(kit), grace=0.05):
            await until(lambda: scene.values("play") == [1])
        job = (await jobs())[0]
        assert (job.status, job.attempts) == (JobStatus.PENDING, 0)
        scene.scenes.clear()
        assert await drain() == 1

    async def test_a_database_that_is_away_is_waited_out(self, kit: Runtime, committed: Database, scene: Stage) -> None:
        looks = 0

        def database() -> Database:
            nonlocal looks
            looks += 1
            if looks < 3:
                raise OSError("no route to host")
            return kit.database

        await kit.queue.push(Play, {"number": 1})
        async with running(JobRunner(database, queues=Queues(1), poll=0.01, lease=60)):
            await until(lambda: scene.values("play") == [1])
        assert looks >= 3

    async def test_stopping_what_never_started_is_nothing(self, kit: Runtime) -> None:
        await make_runner(kit).stop(1)

    async def test_a_heartbeat_that_fails_is_tried_again(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage, capfd: pytest.CaptureFixture[str]
    ) -> None:
        reachable = Reachable(kit)

        async def cut_off() -> None:
            reachable.yes = False
            await asyncio.sleep(0.15)
            reachable.yes = True
            await asyncio.sleep(0.15)

        scene.scenes["play"] = cut_off
        await kit.queue.push(Play, {"number": 1})
        async with running(JobRunner(reachable, queues=Queues(1), poll=60, lease=0.3)):
            await until(lambda: scene.values("play") == [1])
        assert "the leases of jobs could not be extended" in capfd.readouterr().out
        assert (await jobs())[0].status == JobStatus.COMPLETED

    @pytest.mark.parametrize("lease", [60, 0.1], ids=["shorter than the lease", "longer than the lease"])
    async def test_an_outcome_waits_for_a_database_that_is_away(
        self,
        kit: Runtime,
        committed: Database,
        jobs: Jobs,
        scene: Stage,
        capfd: pytest.CaptureFixture[str],
        lease: float,
    ) -> None:
        reachable = Reachable(kit)

        async def cut_off() -> None:
            reachable.yes = False

        scene.scenes["play"] = cut_off
        await kit.queue.push(Play, {"number": 1})
        async with running(JobRunner(reachable, queues=Queues(1), poll=0.02, lease=lease)):
            await until(lambda: reachable.refused >= 5)
            reachable.yes = True
        assert capfd.readouterr().out.count("outcomes of jobs cannot be stored: trying again") == 1
        job = (await jobs())[0]
        assert (job.status, job.attempts, scene.values("play")) == (JobStatus.COMPLETED, 1, [1])

    async def test_an_outcome_that_could_not_be_stored_before_the_end_is_logged(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage, capfd: pytest.CaptureFixture[str]
    ) -> None:
        reachable = Reachable(kit)

        async def cut_off() -> None:
            reachable.yes = False

        scene.scenes["play"] = cut_off
        number = await kit.queue.push(Play, {"number": 1})
        async with running(JobRunner(reachable, queues=Queues(1), poll=60, lease=60), grace=0.05):
            await until(lambda: reachable.refused > 0)
        out = capfd.readouterr().out
        assert out.count("outcomes of jobs cannot be stored: trying again") == 1
        assert f"outcomes of jobs could not be stored: they run again after their lease ids=[{number}]" in out
        assert (await jobs())[0].status == JobStatus.PROCESSING

    async def test_a_task_that_blocks_the_event_loop_beyond_its_lease_runs_once(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage
    ) -> None:
        runner = make_runner(kit, lease=0.3)

        async def block() -> None:
            time.sleep(0.4)  # noqa: ASYNC251  what is tested
            runner.wake()  # so that it looks before the heart beats
            await asyncio.sleep(0.1)

        scene.scenes["play"] = block
        await kit.queue.push(Play, {"number": 1})
        async with running(runner):
            await until(lambda: scene.values("play") != [])
        job = (await jobs())[0]
        assert (job.status, job.attempts, scene.values("play")) == (JobStatus.COMPLETED, 1, [1])

    async def test_its_own_job_is_not_claimed_again_where_the_lease_could_not_be_extended_in_time(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage
    ) -> None:
        runner = make_runner(kit)

        async def outlast_the_lease() -> None:
            await change(kit, available_at=utcnow() - timedelta(seconds=1))
            await kit.queue.push(Say, {"text": "claimed meanwhile"})
            runner.wake()
            await until(lambda: scene.values("say") != [])

        scene.scenes["play"] = outlast_the_lease
        await kit.queue.push(Play, {"number": 1})
        async with running(runner):
            await until(lambda: scene.values("say") != [])
        assert {(job.status, job.attempts) for job in await jobs()} == {(JobStatus.COMPLETED, 1)}
        assert scene.values("play") == [1]

    async def test_the_heart_goes_on_after_any_error(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage
    ) -> None:
        failing = False

        def database() -> Database:
            nonlocal failing
            if failing:
                failing = False
                raise RuntimeError("not what a database raises")
            return kit.database

        async def lose_a_beat() -> None:
            nonlocal failing
            failing = True
            await until(lambda: not failing)
            before = (await jobs())[0].available_at
            async with asyncio.timeout(60):
                while (await jobs())[0].available_at == before:  # noqa: ASYNC110  as `until`
                    await asyncio.sleep(0.01)

        scene.scenes["play"] = lose_a_beat
        await kit.queue.push(Play, {"number": 1})
        async with running(JobRunner(database, queues=Queues(1), poll=60, lease=0.3)):
            await until(lambda: scene.values("play") == [1])
        assert (await jobs())[0].status == JobStatus.COMPLETED

    async def test_the_heart_goes_on_after_a_run_that_ended_itself_when_its_lease_was_lost(
        self, kit: Runtime, committed: Database, scene: Stage
    ) -> None:
        runner = make_runner(kit, lease=0.3)
        beats = 0

        class LostLeases(JobStore):
            """Finds every lease lost, once the runs have ended."""

            async def extend(self, jobs: Iterable[Job]) -> set[Job]:
                nonlocal beats
                beats += 1
                await until(lambda: not runner._active)
                return set()

        async def end_itself() -> None:
            await until(lambda: beats == 1)
            scene.scenes["play"] = lambda: until(lambda: beats == 2)
            task = asyncio.current_task()
            assert task
            task.cancel()
            await asyncio.sleep(0)

        runner.store = LostLeases(lambda: kit.database, timedelta(seconds=0.3))
        scene.scenes["play"] = end_itself
        await kit.queue.push(Play, {"number": 1})
        async with running(runner):
            await until(lambda: beats == 2)

    async def test_a_task_that_ignores_its_cancellation_does_not_keep_the_process(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async def ignore() -> None:
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(30)

        scene.scenes["play"] = ignore
        await kit.queue.push(Play, {"number": 1})
        before = asyncio.all_tasks()
        async with running(make_runner(kit), grace=0.05):
            await until(lambda: scene.values("play") == [1])
        assert "a job ignores that it is cancelled" in capfd.readouterr().out
        await until(lambda: asyncio.all_tasks() <= before)
        job = (await jobs())[0]
        assert (job.status, job.attempts) == (JobStatus.PENDING, 0)

    async def test_what_ends_together_is_stored_together_and_leases_are_kept_together(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage
    ) -> None:
        everybody = asyncio.Barrier(10)

        async def end_together() -> None:
            await asyncio.sleep(0.5)  # three beats
            await everybody.wait()

        scene.scenes["play"] = end_together
        async with kit.database.session_scope():
            for number in range(10):
                await kit.queue.push(Play, {"number": number})
        written: list[tuple[str, int]] = []

        def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
            written.append((statement.partition(" WHERE ")[0], len(parameters) if many else 1))

        with listening(kit.database.engine.sync_engine, "before_cursor_execute", note):
            async with running(make_runner(kit, poll=60, lease=0.4)):
                await until(lambda: len(scene.entries) == 10)
        completing = [rows for text, rows in written if text.startswith("UPDATE") and "finished_at" in text]
        kept = [each for each in written if each[0].startswith("UPDATE") and "started_at" not in each[0]]
        extending = [rows for text, rows in kept if "finished_at" not in text]
        assert sum(completing) == 10
        assert len(completing) <= 2
        assert set(extending) == {10}
        assert {(job.status, job.attempts) for job in await jobs()} == {(JobStatus.COMPLETED, 1)}

    async def test_what_cannot_be_stored_does_not_keep_others_from_it(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage, capfd: pytest.CaptureFixture[str]
    ) -> None:
        store = JobStore(lambda: kit.database, timedelta(seconds=60))
        writer = OutcomeWriter(store)
        async with kit.database.session_scope():
            for number in range(3):
                await kit.queue.push(Play, {"number": number})
        claimed = await store.claim(3)
        stored = [writer.write(completed(job, object() if job is claimed[1] else None)) for job in claimed]
        first, second, third = await asyncio.gather(*stored, return_exceptions=True)
        assert (first, third) == (True, True)
        assert isinstance(second, TypeError | StatementError)
        await writer.close(1)


class TestAway:
    async def test_the_database_is_asked_again_within_seconds_however_rare_polls_are(
        self, kit: Runtime, committed: Database, scene: Stage
    ) -> None:
        asked = 0

        def database() -> Database:
            nonlocal asked
            asked += 1
            if asked < 4:
                raise OSError("away")
            return kit.database

        await kit.queue.push(Play, {"number": 1})
        async with running(JobRunner(database, queues=Queues(1), poll=600, lease=60)):
            await until(lambda: scene.values("play") == [1])


class TestPostgresAway:
    async def test_a_job_that_ends_while_the_server_is_cut_off_runs_once(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage, capfd: pytest.CaptureFixture[str]
    ) -> None:
        if committed.engine.dialect.name == "sqlite":
            pytest.skip("needs PostgreSQL")
        wire = Wire(str(committed.engine.url.host), committed.engine.url.port or 5432)
        port = await wire.connect()
        through = Database.connect(committed.engine.url.set(host="127.0.0.1", port=port))

        async def cut_off() -> None:
            await wire.cut()

        scene.scenes["play"] = cut_off
        await kit.queue.push(Play, {"number": 1})
        try:
            async with running(JobRunner(lambda: through, queues=Queues(1), poll=0.02, lease=60)):
                await until(lambda: "outcomes of jobs cannot be stored: trying again" in capfd.readouterr().out)
                await wire.connect(port)
        finally:
            await through.close()
            await wire.cut()
        job = (await jobs())[0]
        assert (job.status, job.attempts, scene.values("play")) == (JobStatus.COMPLETED, 1, [1])


class TestSideBySide:
    async def test_two_runners_share_the_jobs(
        self, kit: Runtime, committed: Database, jobs: Jobs, scene: Stage
    ) -> None:
        async with kit.database.session_scope():
            for number in range(200):
                await kit.queue.push(Play, {"number": number})
        # Each runs one job at a time, and none ends before the other runs one too: half of them each.
        pair = asyncio.Barrier(2)

        async def wait_for_the_other() -> None:
            await pair.wait()

        scene.scenes["play"] = wait_for_the_other
        async with running(make_runner(kit, concurrency=1)), running(make_runner(kit, concurrency=1)):
            await until(lambda: len(scene.entries) == 200)
        assert sorted(scene.values("play")) == list(range(200))
        assert {(job.status, job.attempts) for job in await jobs()} == {(JobStatus.COMPLETED, 1)}

    async def test_a_claim_does_not_wait_for_a_row_someone_else_has_locked(
        self, kit: Runtime, committed: Database, scene: Stage
    ) -> None:
        if committed.engine.dialect.name == "sqlite":
            pytest.skip("SQLite has one lock for all rows")
        for number in range(2):
            await kit.queue.push(Play, {"number": number})
        store = JobStore(lambda: kit.database, timedelta(seconds=60))
        async with kit.database.session() as other:
            await other.execute(select(Job).order_by(Job.id).limit(1).with_for_update())
            claimed = await asyncio.wait_for(store.claim(10), 60)
            await other.rollback()
        assert [job.payload for job in claimed] == [{"number": 1}]


class TestAlone:
    @pytest.mark.parametrize("fault", ["a setting its process refuses", "no database", "no program"])
    async def test_a_suspect_that_could_not_begin_is_not_charged(
        self, kit: Runtime, committed: Database, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, fault: str
    ) -> None:
        if fault == "a setting its process refuses":
            monkeypatch.setenv("JOBS_QUEUES", "no such thing")
        elif fault == "no program":
            monkeypatch.setattr("sys.executable", "/nowhere/python")
        isolation = Isolation(make_url("postgresql+psycopg://nobody@127.0.0.1:1/none"))
        runner = JobRunner(lambda: kit.database, queues=Queues(1), poll=60, lease=60, isolation=isolation)
        await kit.queue.push(Play, {"number": 1})
        await change(kit, suspect=True)
        async with running(runner), asyncio.timeout(60):
            while (job := (await jobs())[0]).status in (JobStatus.PENDING, JobStatus.PROCESSING):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (job.status, job.attempts, job.max_attempts) == (JobStatus.FAILED, 1, Play.max_attempts + 1)
        assert job.last_error == "ProcessLost: no process could be started to run it alone"
