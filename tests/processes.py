"""What tests of whole processes use."""

import asyncio
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import Self

import psycopg
import pytest
from dotenv import dotenv_values
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy.engine import URL

from app.core.configs import PROJECT_ROOT
from app.core.configs.safety import is_default_password
from tests.conftest import backend
from tests.fork_server import Forked, ForkServer, can_start
from tests.utils import program

BIN = Path(sys.executable).parent
Process = Popen[bytes] | Forked
_uses = itertools.count(1)

starts_in_production = pytest.mark.skipif(
    is_default_password(backend.template.password, backend.template.username),
    reason="outside development the password of TEST_DATABASE_URL is refused, as it is a default one",
)


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """The environment of a process that knows no settings but the given, with its data in `folder`."""
    names = dotenv_values(PROJECT_ROOT / ".sample.env").keys()
    kept = {key: value for key, value in os.environ.items() if key not in names}
    return {**kept, "ENV_FILE": os.devnull, "VAR_DIR": str(folder / "var"), **settings}


@contextmanager
def served_settings() -> Iterator[dict[str, str]]:
    """Settings that name a fresh database and the stores of this half of the tests."""
    url = backend.copy()
    own = backend.environment()
    try:
        yield {
            "DATABASE_URL": url.render_as_string(hide_password=False),
            "REDIS_URL": own["REDIS_URL"],
            "REDIS_KEY_PREFIX": f"{own['REDIS_KEY_PREFIX']}{next(_uses)}:" if own["REDIS_URL"] else "",
        }
    finally:
        backend.drop(url)


def run(
    *command: str, cwd: Path = PROJECT_ROOT, env: Mapping[str, str], given: str = "", timeout: float = 240
) -> CompletedProcess[str]:
    """Run a program to its end, forked where that can be; `given` is its standard input."""
    with tempfile.TemporaryFile("w+") as read, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        read.write(given)
        read.seek(0)
        process: Process
        if can_start(command, env):
            process = ForkServer.shared().start(command, cwd=cwd, env=env, streams=(read, out, err))
        else:
            process = Popen(command, cwd=cwd, env=dict(env), stdin=read, stdout=out, stderr=err)
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        for stream in (out, err):
            stream.seek(0)
        return CompletedProcess(command, code, out.read(), err.read())


def kit(*arguments: str, **settings: str) -> CompletedProcess[str]:
    """Run a `kit` command to its end with these settings alone."""
    kept = {key: value for key, value in os.environ.items() if key == "PATH" or key.startswith("COVERAGE_")}
    return run(sys.executable, "-m", "app.cli", *arguments, env={**kept, "ENV_FILE": os.devnull, **settings})


@contextmanager
def started(*command: str, env: Mapping[str, str], log: Path, cwd: Path = PROJECT_ROOT) -> Iterator[Process]:
    """A process that runs while the block does, its output in `log`. Its group does not outlive the block."""
    process: Process
    with log.open("wb") as output, open(os.devnull) as nothing:
        if can_start(command, env):
            streams = (nothing, output, output)
            process = ForkServer.shared().start(command, cwd=cwd, env=env, streams=streams, start_new_session=True)
        else:
            process = Popen(
                command, cwd=cwd, env=dict(env), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
    try:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
    finally:
        kill(process)


def kill(process: Process) -> None:
    """`kill -9` for a process of `started` and all it started."""
    with suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=120)


def free_port() -> int:
    """A port nobody listens on, below those that a connection of another test may get before it is used."""
    while True:
        port = secrets.choice(range(20_000, 32_768))  # not `random`, which every test seeds alike
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def redis_server(folder: Path, port: int) -> Iterator[Process]:
    """A Redis of the test's own, which keeps nothing when it ends."""
    command = ("redis-server", "--port", str(port), "--save", "", "--dir", str(folder))
    with started(*command, env=os.environ, log=folder / "redis.log") as process:
        with Redis(port=port, socket_timeout=5) as redis:
            wait_for(lambda: _pongs(redis))
        yield process


class Postgres:
    """A PostgreSQL of the test's own, to be started and broken at will; it does not outlive the block."""

    def __init__(self) -> None:
        path = program("postgres")
        assert path is not None
        self._folder = Path(tempfile.mkdtemp(prefix="kit-postgres-"))  # not below tmp_path: `_user` may not go there
        self._bin = Path(path).resolve().parent
        self._user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        if self._user:
            shutil.chown(self._folder, self._user)
        options = ("--no-sync", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C")
        command = [str(self._bin / "initdb"), *options, f"--pgdata={self._folder}/data"]
        subprocess.run(command, cwd="/", user=self._user, check=True, capture_output=True, timeout=240)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start it; gives back when it lets clients in."""
        options = (f"--port={self.port}", "--listen_addresses=127.0.0.1", "--unix_socket_directories=", "--fsync=off")
        command = [str(self._bin / "postgres"), f"-D{self._folder}/data", *options]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd="/", stdout=log, stderr=subprocess.STDOUT, start_new_session=True, user=self._user
            )
        wait_for(self.answers)

    def stop(self, how: signal.Signals) -> None:
        """SIGINT is a fast, SIGQUIT an immediate shutdown; SIGKILL ends the server and all its backends."""
        assert self._process is not None
        if how is signal.SIGKILL:
            self.signal(how)
        else:
            self._process.send_signal(how)
        self._process.wait(timeout=120)

    def signal(self, number: signal.Signals) -> None:
        """Send it to the server, then to its backends, each of which leads a group of its own."""
        assert self._process is not None
        children = subprocess.run(
            ["pgrep", "--parent", str(self._process.pid)], capture_output=True, text=True, check=False, timeout=60
        )
        for pid in (self._process.pid, *map(int, children.stdout.split())):
            with suppress(ProcessLookupError):  # it has ended by itself
                os.kill(pid, number)

    def answers(self) -> bool:
        """True if it lets a client in."""
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


_NGINX_MAIN = """
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/kit.conf;
}}
"""


@contextmanager
def nginx(folder: Path, changes: Mapping[str, str]) -> Iterator[None]:
    """nginx with deploy/nginx.conf, where each of `changes` stands for what the file has."""
    path = program("nginx")
    assert path is not None
    text = (PROJECT_ROOT / "deploy" / "nginx.conf").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(_NGINX_MAIN.format(folder=folder, user=user))
    (folder / "kit.conf").write_text(text)
    command = (path, "-p", str(folder), "-c", str(folder / "nginx.conf"))
    with started(*command, env=os.environ, log=folder / "nginx.log"):
        yield


@contextmanager
def pgbouncer(folder: Path, server: URL, **settings: object) -> Iterator[URL]:
    """A PgBouncer in transaction mode before `server`: the URL to use instead. Needs `pgbouncer`."""
    port = free_port()
    told = {"listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "auth_type": "any"}
    told |= {"pool_mode": "transaction", **settings}
    target = {"host": server.host, "port": server.port, "user": server.username, "password": server.password}
    target = {name: value for name, value in target.items() if value}
    lines = ["[databases]", "* = " + " ".join(f"{name}='{value}'" for name, value in target.items())]
    lines += ["[pgbouncer]", *(f"{name} = {value}" for name, value in told.items())]
    config = folder / "pgbouncer.ini"
    config.write_text("\n".join(lines))
    other_user = ("--user", "nobody") if os.geteuid() == 0 else ()  # it refuses to run as root
    command = (str(program("pgbouncer")), *other_user, str(config))
    with started(*command, env=os.environ, log=folder / "pgbouncer.log") as process:
        wait_for(lambda: _listens(port) or process.poll() is not None)
        yield server.set(host="127.0.0.1", port=port)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def wrong_clock(offset: str) -> dict[str, str]:
    """The environment of a process whose clock is off by `offset`, such as "+300s" or the path of a file with that."""
    path = program("faketime")
    assert path is not None
    asked = (path, "-m", "-f", "+0", "printenv", "LD_PRELOAD")
    library = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    where = "FAKETIME_TIMESTAMP_FILE" if offset.startswith("/") else "FAKETIME"
    return {"LD_PRELOAD": library, where: offset, "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def _pongs(redis: "Redis") -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Until `condition` holds; an AssertionError where it does not in time."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.05)


async def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """The same, while the event loop goes on."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited in vain"
        await asyncio.sleep(0.02)
