"""The two servers, one process each, on one database; and the CPU time they have used."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy.engine import URL

from app.cli.run import answers
from tests.backends import Served

ROOT = Path(__file__).parents[1]
ACCOUNTS = 10_000
PASSWORD = "a password to measure with"


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """What all its threads have used so far; the kernel counts it in nanoseconds."""
        files = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(path.read_text().split()[0]) for path in files) / 1e9


@contextmanager
def servers(database_url: str, redis_url: str) -> Iterator[tuple[Server, Server]]:
    """The service and the baseline, with `ACCOUNTS` accounts; everything is gone afterwards."""
    backend = Served(database_url, redis_url)
    try:
        shared = _environment(backend)
        with _started("service", (sys.executable, "-m", "app.cli", "run"), shared, "/health/ready") as service:
            _fill(backend.template)
            bare = (sys.executable, "-m", "uvicorn", "benchmarks.baseline:app", "--no-access-log", "--loop", "uvloop")
            with _started("baseline", (*bare, "--http", "httptools"), shared, "/health") as baseline:
                yield service, baseline
    finally:
        backend.close()


@contextmanager
def switched(database_url: str, redis_url: str, settings: Mapping[str, str]) -> Iterator[tuple[Server, Server]]:
    """The service with `settings`, and without."""
    backend = Served(database_url, redis_url)
    command = (sys.executable, "-m", "app.cli", "run")
    try:
        shared = _environment(backend)
        with _started("off", command, shared, "/health/ready") as off:
            _fill(backend.template)
            with _started("on", command, {**shared, **settings}, "/health/ready") as on:
                yield on, off
    finally:
        backend.close()


def _environment(backend: Served) -> dict[str, str]:
    """The service as it is in production: everything on. Behind a proxy, so that each login has its own limit."""
    given = backend.environment()
    return {
        "PATH": os.environ["PATH"],
        "ENV_FILE": os.devnull,
        "ENVIRONMENT": "production",
        "DOMAIN": "bench.example.com",
        "FRONTEND_URL": "https://bench.example.com",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "JWT_SECRET_KEY": secrets.token_urlsafe(48),
        "FIRST_USER_PASSWORD": PASSWORD,
        "TRUSTED_PROXIES": "127.0.0.1",
        "WORKER_IN_APP": "false",
        "VAR_DIR": given["VAR_DIR"],
        "DATABASE_URL": given["DATABASE_URL"],
        "REDIS_URL": given["REDIS_URL"],
        "REDIS_KEY_PREFIX": given["REDIS_KEY_PREFIX"],
    }


@contextmanager
def _started(name: str, command: tuple[str, ...], environment: dict[str, str], health: str) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    if name == "baseline":
        command = (*command, "--port", str(port))
    with tempfile.TemporaryFile() as log:  # a file, as the lines of the access log are part of what is measured
        own = {**environment, "PORT": str(port)}
        with subprocess.Popen(command, cwd=ROOT, env=own, stdout=log, stderr=log) as process:
            try:
                give_up = time.monotonic() + 60
                while not answers("127.0.0.1", port, health):
                    if process.poll() is not None or time.monotonic() > give_up:
                        log.seek(0)
                        raise RuntimeError(f"the {name} does not start: {log.read().decode()}")
                    time.sleep(0.05)
                yield Server(name, process.pid, port)
            finally:
                process.terminate()


def _fill(url: URL) -> None:
    """Accounts beside the first administrator, with the same password."""
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO auth_users (email, email_key, username, username_key, password_hash, status_id, is_verified,"
            " is_superuser, created_at, updated_at) SELECT n || '@example.com', n || '@example.com', 'user' || n,"
            " 'user' || n, admin.password_hash, 1, true, false, now(), now() FROM auth_users AS admin, "
            "generate_series(1, %s) AS n",
            (ACCOUNTS,),
        )
        connection.execute("VACUUM ANALYZE auth_users")
