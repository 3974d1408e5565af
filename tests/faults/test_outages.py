"""The servers of a working service fail, each in several ways, and come back, and so does its disk.

Clients come at a steady pace all the while. `make faults` leaves the servers away for longer, and prints what they saw.
"""

import asyncio
import signal
import socket
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, closing
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from tests.conftest import backend
from tests.faults.load import Load, failing
from tests.faults.routers import LIMIT
from tests.faults.service import Service, running, strike
from tests.faults.test_mail import Post, listening
from tests.processes import Postgres, free_port, redis_server, until

SERVED = bool(backend.environment()["REDIS_URL"])


class Site:
    """The service with servers of its own, each of which a test may break."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.postgres = stack.enter_context(Postgres())
        self._lock = stack.enter_context(ExitStack())
        self._redis_port, self._smtp_port = free_port(), free_port()
        self.start_redis()
        self.post = Post()
        self._mail_server = stack.enter_context(ExitStack())
        self.start_mail_server()
        redis_url = f"redis://127.0.0.1:{self._redis_port}/0"
        self.service = Service(
            folder, {"DATABASE_URL": self.postgres.url, "REDIS_URL": redis_url, "REDIS_KEY_PREFIX": ""}
        )
        self.service.settings |= {
            "JOBS_LEASE_SECONDS": "20",  # longer than the outage: nothing has to run twice
            "RATE_LIMITER_ENABLED": "true",
            "TRUSTED_PROXIES": "127.0.0.1",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(self._smtp_port),
            "SMTP_TLS": "false",
        }

    def failing(self, fault: str, break_it: "Act", mend_it: "Act") -> AbstractAsyncContextManager[Load]:
        """A load on the service while the block runs, see `tests.faults.load.failing`."""
        return failing(self.service, fault, lambda: break_it(self), lambda: mend_it(self), self._mailed)

    def _mailed(self) -> list[str]:
        return [recipient for recipient, _ in self.post.delivered]

    def end_backends(self) -> None:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

    def lock_users(self) -> None:
        connection = self._lock.enter_context(psycopg.connect(self.postgres.url))
        connection.execute("LOCK TABLE auth_users")

    def unlock_users(self) -> None:
        self._lock.close()

    def start_redis(self) -> None:
        self.redis = self._stack.enter_context(redis_server(self._folder, self._redis_port))

    def command_redis(self, *command: str | int) -> None:
        with Redis(port=self._redis_port, socket_timeout=5) as redis:
            redis.execute_command(*command)

    def start_mail_server(self) -> None:
        self.post.seconds = 0.0
        self._mail_server.close()
        self._mail_server.enter_context(listening(self.post, self._smtp_port))

    def stop_mail_server(self) -> None:
        self._mail_server.close()

    def slow_mail_server(self) -> None:
        self.post.seconds = 1.0

    def silence_mail_server(self) -> None:
        """In its place listens one that lets clients in and never says a word."""
        self._mail_server.close()
        self._mail_server.enter_context(socket.create_server(("127.0.0.1", self._smtp_port), backlog=128))


Act = Callable[[Site], object]


def nothing(site: Site) -> None:
    """It is back by itself."""


POSTGRES_FAULTS: dict[str, tuple[Act, Act]] = {
    "stopped": (lambda site: site.postgres.stop(signal.SIGINT), lambda site: site.postgres.start()),
    "stopped at once": (lambda site: site.postgres.stop(signal.SIGQUIT), lambda site: site.postgres.start()),
    "killed": (lambda site: site.postgres.stop(signal.SIGKILL), lambda site: site.postgres.start()),
    "hanging": (lambda site: site.postgres.signal(signal.SIGSTOP), lambda site: site.postgres.signal(signal.SIGCONT)),
    "backends ended": (Site.end_backends, nothing),
}
REDIS_FAULTS: dict[str, tuple[Act, Act]] = {
    "stopped": (lambda site: strike(site.redis), Site.start_redis),
    "hanging": (
        lambda site: site.redis.send_signal(signal.SIGSTOP),
        lambda site: site.redis.send_signal(signal.SIGCONT),
    ),
    "full": (
        lambda site: site.command_redis("CONFIG", "SET", "maxmemory", 1),
        lambda site: site.command_redis("CONFIG", "SET", "maxmemory", 0),
    ),
    "read-only": (
        lambda site: site.command_redis("REPLICAOF", "127.0.0.1", free_port()),
        lambda site: site.command_redis("REPLICAOF", "NO", "ONE"),
    ),
    "flushed": (lambda site: site.command_redis("FLUSHALL"), nothing),
}
MAIL_FAULTS: dict[str, tuple[Act, Act]] = {
    "refusing": (Site.stop_mail_server, Site.start_mail_server),
    "slow": (Site.slow_mail_server, Site.start_mail_server),
    "silent": (Site.silence_mail_server, Site.start_mail_server),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One service for all of these faults: server, worker and scheduler."""
    with ExitStack() as stack:
        site = Site(tmp_path_factory.mktemp("site"), stack)
        running(stack, site.service.app())
        running(stack, site.service.worker())
        running(stack, site.service.scheduler())
        yield site


@pytest.mark.skipif(not SERVED, reason="embedded there is no server to fail")
@pytest.mark.needs("postgres", "redis-server", "pgrep")
class TestServers:
    @pytest.mark.parametrize("fault", POSTGRES_FAULTS)
    async def test_without_postgres_requests_get_503_and_nothing_is_lost(self, site: Site, fault: str) -> None:
        async with site.failing(f"PostgreSQL {fault}", *POSTGRES_FAULTS[fault]) as load:
            pass
        assert set(load.outcomes()) <= {"200", "201", "503"}

    async def test_behind_a_locked_table_requests_get_503_within_seconds(self, site: Site) -> None:
        async with site.failing("PostgreSQL table locked", Site.lock_users, Site.unlock_users) as load:
            await until(lambda: load.outcomes()["503"], 30)  # by then each connection waits for the lock
        assert set(load.outcomes()) == {"200", "201", "503"}

    @pytest.mark.parametrize("fault", REDIS_FAULTS)
    async def test_without_redis_no_request_fails_and_limits_hold(self, site: Site, fault: str) -> None:
        async with site.failing(f"Redis {fault}", *REDIS_FAULTS[fault]) as load:
            header = {"X-Forwarded-For": f"192.0.2.{list(REDIS_FAULTS).index(fault)}"}
            asked = (load.http.get("/faults/limited", headers=header) for _ in range(LIMIT + 5))
            answers = Counter(answer.status_code for answer in await asyncio.gather(*asked))
        assert set(load.outcomes()) == {"200", "201"}
        assert answers == {200: LIMIT, 429: 5}

    @pytest.mark.parametrize("fault", MAIL_FAULTS)
    async def test_without_a_mail_server_other_work_goes_on_and_every_mail_arrives_once(
        self, site: Site, fault: str
    ) -> None:
        count = 30  # more than a worker runs at once
        site.post.delivered.clear()
        async with site.failing(f"SMTP {fault}", *MAIL_FAULTS[fault]) as load:
            assert await site.service.post("/faults/mails", count=count) == 200
            await until(lambda: load.outcomes("register")["201"] > 15, 60)  # each of them is greeted by a listener
            assert await site.service.post("/faults/marks", name=f"beside-{fault}") == 200
            await until(lambda: any(name == f"beside-{fault}" for name, _ in site.service.journal.of("marked")), 15)
        assert set(load.outcomes()) == {"200", "201"}
        seats = Counter(recipient for recipient, _ in site.post.delivered if recipient.startswith("seat"))
        assert sorted(seats.values()) == [1] * count


@pytest.mark.skipif(SERVED, reason="embedded the database is a file of the service")
class TestDisk:
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[Path]:
        """A small disk."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False, timeout=60).returncode:
            pytest.skip("needs the right to mount a small disk")
        yield disk
        subprocess.run(["umount", "--lazy", str(disk)], check=True, timeout=60)

    async def test_a_full_disk_refuses_writes_serves_reads_and_loses_nothing(
        self, service: Service, disk: Path
    ) -> None:
        service.move_database(disk / "app.db")

        def fill() -> None:
            with (disk / "filler").open("wb", buffering=0) as file:
                while True:
                    try:
                        file.write(b"x" * 4096)
                    except OSError:
                        return

        with service.app():
            async with failing(service, "disk full", fill, (disk / "filler").unlink) as load:
                await until(lambda: load.outcomes("register")["503"] > 2, 60)
        assert set(load.outcomes()) == {"200", "201", "503"}
        assert set(load.outcomes("read")) == {"200"}
        with closing(sqlite3.connect(disk / "app.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
