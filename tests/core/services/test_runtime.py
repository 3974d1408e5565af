"""What a process opens, and how it closes."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import delete, make_url, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.core.configs import PROJECT_ROOT, AppConfig
from app.core.db.base import utcnow
from app.core.db.installation import Installation, KeyPrefix, identity_of, other_owner
from app.core.db.jobs import Job, JobStatus
from app.core.db.session import Database
from app.core.runtime import Runtime, open_runtime, runtime
from app.core.services.cache import CacheService, RedisStore
from app.core.services.mail import CaptureMailService, SMTPMailService
from tests.conftest import backend
from tests.core.services.conftest import rolled_back, until
from tests.core.services.stage import CurtainRaised, Play, Stage

Jobs = Callable[[], Awaitable[Sequence[Job]]]


@pytest.fixture
def settings(committed: Database, tmp_path: Path) -> AppConfig:
    """Of a second application on the test's database, which looks for jobs once a minute."""
    return AppConfig(
        DATABASE_URL=SecretStr(committed.engine.url.render_as_string(hide_password=False)),
        VAR_DIR=tmp_path / "var",
        JOBS_POLL_SECONDS=60,
    )


async def test_jobs_run_at_once_after_the_commit(settings: AppConfig, scene: Stage) -> None:
    async with open_runtime(settings, run_jobs=True) as opened:
        async with opened.database.session_scope():
            await opened.queue.push(Play, {"number": 1})
            opened.events.dispatch(CurtainRaised(act=1))
        await until(lambda: {entry.name for entry in scene.entries} >= {"play", "first", "second", "light"})


@pytest.mark.skipif(not backend.environment()["REDIS_URL"], reason="SQLite waits for one lock alone")
async def test_the_bounds_of_the_database_are_those_of_the_settings(committed: Database) -> None:
    settings = AppConfig(
        DATABASE_URL=SecretStr(committed.engine.url.render_as_string(hide_password=False)),
        DB_POOL_SIZE=1,
        DB_POOL_TIMEOUT_SECONDS=0.2,
        DB_STATEMENT_TIMEOUT_SECONDS=0.4,
        DB_IDLE_TRANSACTION_TIMEOUT_SECONDS=7,
    )
    async with open_runtime(settings, run_jobs=False) as opened, opened.database.session_scope() as session:
        assert await session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "7s"
        with pytest.raises(PoolTimeout, match=r"timeout 0\.2"):
            async with opened.database.session_scope() as other:
                await other.execute(select(1))
        with pytest.raises(OperationalError, match=r"no answer within 0\.4 s"):
            await session.execute(text("SELECT pg_sleep(20)"))
        await session.rollback()


async def test_jobs_that_hold_every_connection_keep_their_leases(
    settings: AppConfig, committed: Database, jobs: Jobs, scene: Stage
) -> None:
    held: list[bool] = []

    async def hold() -> None:
        async with runtime().database.session_scope(read_only=True) as session:
            await session.execute(select(1))
            await asyncio.sleep(1)
            async with committed.session_scope(read_only=True) as other:
                held.append((await other.scalars(select(Job.available_at))).all()[0] > utcnow())

    scene.scenes["play"] = hold
    settings = settings.model_copy(update={"DB_POOL_SIZE": 1, "JOBS_CONCURRENCY": 2, "JOBS_LEASE_SECONDS": 0.6})
    async with open_runtime(settings, run_jobs=True, run_schedule=False) as opened:
        async with opened.database.session_scope():
            for number in range(2):
                await opened.queue.push(Play, {"number": number})
        await until(lambda: len(held) == 2)
    assert held == [True, True]


async def test_closing_waits_for_jobs_and_for_what_was_dispatched_outside_a_unit(
    settings: AppConfig, jobs: Jobs, scene: Stage
) -> None:
    scene.scenes["play"] = lambda: asyncio.sleep(0.2)
    async with open_runtime(settings, run_jobs=True) as opened:
        await opened.queue.push(Play, {"number": 1})
        await until(lambda: scene.values("play") == [1])
        opened.events.dispatch(CurtainRaised(act=1))
    found = {job.task: job.status for job in await jobs()}
    assert found["test.play"] == JobStatus.COMPLETED
    assert "events.listen" in found


async def test_the_schedule_runs_where_the_jobs_run(settings: AppConfig, scene: Stage) -> None:
    async with open_runtime(settings, run_jobs=True):
        await until(lambda: len(scene.values("tick")) >= 2)
    assert all(entry.attempt == 1 for entry in scene.entries)


async def test_jobs_wait_where_none_are_run(settings: AppConfig, jobs: Jobs, scene: Stage) -> None:
    async with open_runtime(settings, run_jobs=False) as opened:
        await opened.queue.push(Play, {"number": 1})
        assert not opened.runner.running
        assert await opened.runner.drain() == 1
    assert scene.values("play") == [1]


async def test_what_was_open_before_is_open_again(kit: Runtime, settings: AppConfig) -> None:
    before = [kit.settings, kit.database, kit.cache, kit.queue, kit.runner]
    async with rolled_back(open_runtime(settings, run_jobs=True)) as opened:
        now = [opened.settings, opened.database, opened.cache, opened.queue, opened.runner]
        assert not any(one is other for one, other in zip(now, before, strict=True))
    after = [runtime().settings, runtime().database, runtime().cache, runtime().queue, runtime().runner]
    assert all(one is other for one, other in zip(after, before, strict=True))


async def test_settings_choose_the_services(kit: Runtime, settings: AppConfig, tmp_path: Path) -> None:
    assert isinstance(kit.mail, CaptureMailService)
    assert isinstance(kit.cache, CacheService)
    sending = AppConfig(DATABASE_URL=settings.DATABASE_URL, VAR_DIR=tmp_path, SMTP_HOST="127.0.0.1")
    async with open_runtime(sending, run_jobs=False) as opened:
        assert isinstance(opened.mail, SMTPMailService)


def test_before_anything_is_open_the_error_says_what_to_do() -> None:
    code = "from app.core.runtime import runtime; runtime()"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert "RuntimeNotOpen: the application is not started: use its lifespan" in done.stderr


def url_of(database: Database) -> SecretStr:
    return SecretStr(database.engine.url.render_as_string(hide_password=False))


@pytest.fixture
async def other(committed: Database) -> AsyncIterator[Database]:
    """The database of another service; both are without the identity that other tests may have left in the template."""
    url = backend.copy()
    database = Database.connect(url)
    for each in (database, committed):
        async with each.session_scope() as session:
            await session.execute(delete(Installation))
    yield database
    await database.close()
    backend.drop(url)


@pytest.fixture
async def redis(kit: Runtime) -> AsyncIterator[Redis]:
    """A Redis to look into; what the test writes below `kit:` is removed."""
    if kit.redis is None:
        pytest.skip("needs Redis")
    async with Redis.from_url(str(kit.settings.redis_url), socket_timeout=10) as redis:
        before = {key async for key in redis.scan_iter("kit:*")}
        yield redis
        for key in {key async for key in redis.scan_iter("kit:*")} - before:
            await redis.delete(key)


class TestOneRedis:
    """Services with databases of their own keep apart; processes on one database share."""

    def service(self, database: Database, **settings: Any) -> AppConfig:
        return AppConfig(DATABASE_URL=url_of(database), **{"REDIS_KEY_PREFIX": None, **settings})

    async def test_two_services_do_not_read_each_other(
        self, redis: Redis, committed: Database, other: Database
    ) -> None:
        async with open_runtime(self.service(committed), run_jobs=False) as one:
            await one.cache.set("shared", "mine", ttl=60)
            prefix = await one.key_prefix.get()  # before the slots hold what the second opens
            async with open_runtime(self.service(other), run_jobs=False) as two:
                assert await two.cache.get("shared") is None
                assert await two.key_prefix.get() != prefix
            async with open_runtime(self.service(committed), run_jobs=False) as again:
                assert await again.cache.get("shared") == "mine"

    async def test_processes_that_start_at_once_agree(self, redis: Redis, committed: Database) -> None:
        prefixes = await asyncio.gather(*(KeyPrefix(None, lambda: committed).get() for _ in range(5)))
        assert len(set(prefixes)) == 1

    async def test_without_the_database_redis_counts_as_away_until_it_answers(
        self, redis: Redis, committed: Database, other: Database
    ) -> None:
        nowhere = Database.connect(make_url("postgresql+psycopg://nobody@127.0.0.1:1/nothing"))
        used, prefix = [nowhere], KeyPrefix(None, lambda: used[0])
        store = RedisStore(redis, prefix, timeout=10)
        with pytest.raises(RedisConnectionError):
            await prefix.get()
        assert not await store.write("key", b"value", 60, ())
        assert not await store.remove(["key"])
        used[0] = committed
        await until(lambda: prefix.known is not None)
        async with asyncio.timeout(60):
            while not await store.write("key", b"value", 60, ()):  # noqa: ASYNC110  a server is waited for
                await asyncio.sleep(0.05)
        assert await redis.get(f"{prefix.known}cache:k:key") == b"value"
        await store.close()

    async def test_a_foreign_owner_of_an_explicit_prefix_is_named(
        self, redis: Redis, committed: Database, other: Database
    ) -> None:
        ours = await identity_of(committed)
        prefix = f"kit:{uuid4()}:"
        assert await other_owner(redis, prefix, committed) is None
        assert await other_owner(redis, prefix, committed) is None
        assert await other_owner(redis, prefix, other) == ours
