"""What tests of whole processes use."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from dotenv import dotenv_values
from redis import Redis
from redis.exceptions import RedisError

from app.core.configs import PROJECT_ROOT
from tests.conftest import backend

BIN = Path(sys.executable).parent


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
            "REDIS_KEY_PREFIX": f"{own['REDIS_KEY_PREFIX']}{url.database}:" if own["REDIS_URL"] else "",
        }
    finally:
        backend.drop(url)


def kit(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run a `kit` command to its end with these settings alone."""
    command = [sys.executable, "-m", "app.cli", *arguments]
    kept = {key: value for key, value in os.environ.items() if key == "PATH" or key.startswith("COVERAGE_")}
    variables = {**kept, "ENV_FILE": os.devnull, **settings}
    return subprocess.run(
        command, cwd=PROJECT_ROOT, env=variables, capture_output=True, text=True, timeout=240, check=False
    )


@contextmanager
def started(
    *command: str, env: Mapping[str, str], log: Path, cwd: Path = PROJECT_ROOT
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that runs while the block does, its output in `log`. Its group does not outlive the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=cwd, env=dict(env), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
    finally:
        kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    """`kill -9` for a process of `started` and all it started."""
    with suppress(ProcessLookupError):  # it has ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=120)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def redis_server(folder: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A Redis of the test's own, which keeps nothing when it ends."""
    command = ("redis-server", "--port", str(port), "--save", "", "--dir", str(folder))
    with started(*command, env=os.environ, log=folder / "redis.log") as process:
        with Redis(port=port, socket_timeout=5) as redis:
            wait_for(lambda: _pongs(redis))
        yield process


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
