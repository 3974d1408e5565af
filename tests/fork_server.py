"""A fork server: starts `python -m ...` from a process that has the libraries loaded already.

Most of the time a command takes goes into importing FastAPI, SQLAlchemy and the rest, and tests start hundreds. The
server imports libraries alone: a program it forks imports `app` itself, with the environment, folder, streams and
session it is given, as a fresh interpreter does. Hash seeds and `ps` are what tells the two apart.
"""

import atexit
import gc
import importlib
import importlib.util
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

LIBRARIES = (
    *("aiosqlite", "cronsim", "email_validator", "fastapi", "fastapi_events.handlers.local", "fastapi_limiter.depends"),
    *("fastapi_swagger", "httpx2", "jinja2", "jose.jwt", "orjson", "passlib.hash", "psycopg", "pydantic_settings"),
    *("redis.asyncio", "rich.table", "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite.aiosqlite"),
    *("sqlalchemy.ext.asyncio", "structlog", "taskiq.receiver", "taskiq_redis", "typer"),
    *("uvicorn.protocols.http.httptools_impl", "uvicorn.supervisors", "uvloop"),
)
PROGRAMS = ("app.cli", "uvicorn", "tests.contract.docs_page", "tests.external.visit")
_STRICT = ["-W", "error"]
_READ_AT_START = ("PYTHON", "COVERAGE_", "LD_PRELOAD")
_HEEDED = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}


def can_start(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """False for what an interpreter must read when it starts, such as PYTHONWARNINGS or the settings of coverage."""
    read_at_start = {name for name, value in env.items() if value and name.startswith(_READ_AT_START)}
    python, *options, name = command[: command.index("-m") + 2] if "-m" in command else ("", "")
    known = python == sys.executable and options in (["-m"], [*_STRICT, "-m"]) and name in PROGRAMS
    return known and read_at_start <= _HEEDED and hasattr(os, "fork")


class Forked:
    """A process of the fork server, with what tests use of `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], report: int) -> None:
        self.args = command
        self.returncode: int | None = None
        self._report = os.fdopen(report, "rb", buffering=0)
        self.pid = self._read()

    def poll(self) -> int | None:
        """The exit code, or None while the process runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code; `subprocess.TimeoutExpired` where it does not come in time."""
        if self.returncode is None:
            ready = select.poll()
            ready.register(self._report, select.POLLIN)
            if not ready.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._read()
            self._report.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _read(self) -> int:
        line = self._report.readline()
        assert line, "the fork server has ended"
        return int(line)


class ForkServer:
    """The server of this test run; it ends when this process does."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(number)],
                env={name: value for name, value in os.environ.items() if not name.startswith(_READ_AT_START)},
                stdin=subprocess.DEVNULL,
                pass_fds=[number],
                start_new_session=True,  # Ctrl-C is for the tests, which then end what they started
            )
        atexit.register(self._close)

    def _close(self) -> None:
        self._control.close()
        self._process.wait(timeout=60)

    @classmethod
    @cache
    def shared(cls) -> "ForkServer":
        """The server, started with the first process that is asked of it."""
        return cls()

    def start(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        streams: tuple[IO[Any], IO[Any], IO[Any]],
        start_new_session: bool = False,
    ) -> Forked:
        """Start `command` with these for its standard input, output and error."""
        request = {"command": command[1:], "cwd": str(cwd), "env": dict(env), "session": start_new_session}
        message = json.dumps(request).encode() + b"\n"
        report, theirs = os.pipe()
        try:
            with self._lock:
                files = [stream.fileno() for stream in streams]
                sent = socket.send_fds(self._control, [message], [*files, theirs])
                self._control.sendall(message[sent:])
        finally:
            os.close(theirs)
        return Forked(command, report)


def _serve(control: socket.socket) -> dict[str, Any]:
    """Fork a process for each request; returns the request in that process."""
    for name in LIBRARIES:
        importlib.import_module(name)
    assert threading.active_count() == 1, "forks would lose threads"
    gc.collect()
    gc.freeze()
    while True:
        message, files, *_ = socket.recv_fds(control, 1 << 16, 4)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not message:
            os._exit(0)
        while not message.endswith(b"\n"):
            message += control.recv(1 << 16)
        if os.fork() == 0:
            control.close()
            *streams, report = files
            if (child := os.fork()) != 0:
                _report(child, streams, report)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            os.closerange(3, 1024)
            request: dict[str, Any] = json.loads(message)
            return request
        for file in files:
            os.close(file)


def _report(child: int, streams: list[int], report: int) -> NoReturn:
    """Tell the pid and the exit code of the process, then end; its parent must be who waits for it."""
    try:
        for stream in streams:
            os.close(stream)
        os.write(report, b"%d\n" % child)
        _, status = os.waitpid(child, 0)
        os.write(report, b"%d\n" % os.waitstatus_to_exitcode(status))
    finally:
        os._exit(0)  # nobody may be left to be told


def _become(request: dict[str, Any], packages: list[str]) -> str:
    """Be as a fresh interpreter would be with this request; the name of the module to run."""
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    chosen = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [os.getcwd(), *chosen, *packages]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    command: list[str] = request["command"]
    if command[:2] == _STRICT:
        sys.warnoptions.append("error")
        warnings.simplefilter("error")
        del command[:2]
    _, name, *sys.argv[1:] = command
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty(), write_through=at_once)  # type: ignore[union-attr]
    return name


if __name__ == "__main__":
    packages = sys.path[1:]  # without the folder of this file
    sys.path[:] = packages
    runpy.run_module(
        _become(_serve(socket.socket(fileno=int(sys.argv[1]))), packages), run_name="__main__", alter_sys=True
    )
