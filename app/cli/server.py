"""Server processes: listen before the database answers; stop in bounded time, without resetting a connection."""

import asyncio
import ctypes
import math
import multiprocessing
import os
import signal
import socket
import struct
import sys
import time
import traceback
from functools import partial
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import TYPE_CHECKING

import typer
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import ChangeReload

from app.cli.console import explained_errors
from app.cli.migrate import quiet_alembic
from app.cli.serving import Connection
from app.cli.starting import announce, bootstrap, prepare
from app.core.metrics import forget_process
from app.core.process import lifecycle

if TYPE_CHECKING:
    from app.core.configs import AppConfig

ACCEPT_SECONDS = 0.25
"""Time to accept connections whose handshake is under way before the socket closes."""
CUT_SECONDS = 1.0
"""Time for cancelled requests to send their last answer."""
CLOSE_SECONDS = 4
"""Time for everything after the grace; then the process is killed."""
RESPAWN_SECONDS = 0.5
HOLD_SECONDS = 10.0
"""Time for which requests wait for a start that meets no obstacle."""

_STOP = (signal.SIGTERM, signal.SIGINT)
_SO_ATTACH_FILTER = 26
# Classic BPF: drop segments with SYN, byte 13 & 2 of the TCP header, and let all others through.
_NO_SYN = b"".join(
    struct.pack("HBBI", *step) for step in ((0x30, 0, 0, 13), (0x45, 0, 1, 2), (6, 0, 0, 0), (6, 0, 0, 1 << 31))
)


def refuse_connections(listener: socket.socket) -> None:
    """Stop accepting connections in all processes that share the socket; keep those that are established.

    Closing a socket resets what waits in its queue. A client whose SYN is dropped tries again after a second, and is
    refused by the closed port.
    """
    program = ctypes.create_string_buffer(_NO_SYN, len(_NO_SYN))
    try:
        fprog = struct.pack("HL", len(_NO_SYN) // 8, ctypes.addressof(program))
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
    except OSError:  # not Linux: the shortest queue is the nearest there is
        listener.listen(0)


class Server(uvicorn.Server):
    """A uvicorn server that drains before it stops, and stops in bounded time.

    The leader listens at once, migrates and prints the addresses. The others, and replacements, listen
    once their application is open: no request reaches an unready process while another one is ready.
    """

    opened: socket.socket | None = None
    """The socket that receives a byte once the application is open."""

    def __init__(self, config: uvicorn.Config, settings: "AppConfig", quiet: bool) -> None:
        super().__init__(config)
        self.settings = settings
        self.quiet = quiet
        self.is_leader = True
        self._stops_at = math.inf

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the application, and listen."""
        if self.is_leader:
            lifecycle.starting = {"database": "failed", "migrations": "failed"}
        self._closing, self._is_open = asyncio.Event(), asyncio.Event()
        self._application = asyncio.create_task(self._run_application())
        self._application.add_done_callback(self._end)
        if not self.is_leader:
            await self._is_open.wait()
        await super().startup(sockets)
        if parent := multiprocessing.parent_process():
            asyncio.get_running_loop().add_reader(parent.sentinel, self._orphaned, parent.sentinel)

    async def _run_application(self) -> None:
        from app.main import app

        if self.is_leader:
            lifecycle.hold_until = time.monotonic() + HOLD_SECONDS
            await prepare(self.settings)
        async with app.router.lifespan_context(app) as state:
            self.lifespan.state.update(state or {})
            news = await bootstrap(self.settings) if self.is_leader else []
            lifecycle.starting = None
            self._is_open.set()
            if self.is_leader:
                announce(self.settings, self.servers[0].sockets[0], news, self.quiet)
            if self.opened:
                self.opened.send(b"\0")
            await self._closing.wait()

    def _end(self, _application: "asyncio.Task[None]") -> None:
        self.should_exit = True
        self._is_open.set()

    def _orphaned(self, sentinel: int) -> None:
        asyncio.get_running_loop().remove_reader(sentinel)
        self.handle_exit(signal.SIGTERM, None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at the first signal, end at once at the second."""
        if sig == signal.SIGINT and multiprocessing.parent_process():
            return  # a terminal signals the whole group, and the parent will pass it on
        if self._stops_at < math.inf:
            os._exit(128 + sig)
        drain = self.settings.drain_seconds if lifecycle.starting is None else 0
        self._stops_at = time.monotonic() + drain
        lifecycle.hold_until = 0
        lifecycle.grace_ends = self._stops_at + self.settings.SHUTDOWN_GRACE_SECONDS
        # The kernel kills the process even if its event loop or a thread is blocked.
        signal.alarm(math.ceil(drain) + self.settings.SHUTDOWN_GRACE_SECONDS + CLOSE_SECONDS)

    async def on_tick(self, counter: int) -> bool:
        """Refuse slow clients every second; return whether to stop serving."""
        if counter % 10 == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check(now, self.settings.CLIENT_TIMEOUT_SECONDS)
        return await super().on_tick(counter) or time.monotonic() >= self._stops_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept pending connections, finish requests within the grace time, then close the application."""
        for listener in sockets or []:
            refuse_connections(listener)
        await asyncio.sleep(ACCEPT_SECONDS)
        loop, grace = asyncio.get_running_loop(), lifecycle.grace(self.settings.SHUTDOWN_GRACE_SECONDS)
        timers = [loop.call_later(grace, self._cut), loop.call_later(grace + CUT_SECONDS, self._abort)]
        await super().shutdown(sockets)
        for timer in timers:
            timer.cancel()
        self._closing.set()
        if lifecycle.starting is not None and lifecycle.grace_ends is not None:
            self._application.cancel()
            await asyncio.gather(self._application, return_exceptions=True)  # told to stop: nothing went wrong
        else:
            await self._application

    def _cut(self) -> None:
        """Cancel every request: those without an answer get a problem, streams and websockets end."""
        lifecycle.cancelling = True
        for task in self.server_state.tasks:
            task.cancel()

    def _abort(self) -> None:
        self.force_exit = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def serve_child(server: Server, sockets: list[socket.socket]) -> None:
    """Run a server in a child process; exit with STARTUP_FAILURE if its application cannot start."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server.config.configure_logging()
    quiet_alembic()
    try:
        with explained_errors():
            server.run(sockets)
    except typer.Exit:
        sys.exit(STARTUP_FAILURE)
    except Exception:
        traceback.print_exc()
        sys.exit(STARTUP_FAILURE)


class Reload(ChangeReload):  # type: ignore[misc, valid-type]  # one of two classes, by what is installed
    """Restarts the server process whenever the code changes; only the first one migrates and prints the addresses."""

    def __init__(self, server: Server, listener: socket.socket) -> None:
        self._server = server
        super().__init__(server.config, target=partial(serve_child, server), sockets=[listener])

    def restart(self) -> None:
        """Restart the server process."""
        self._server.is_leader = False
        super().restart()

    def signal_handler(self, sig: int, frame: FrameType | None) -> None:
        """Stop at the first signal, end at once at the second."""
        if self.should_exit.is_set():
            self.process.kill()
            os._exit(128 + sig)
        super().signal_handler(sig, frame)


def supervise(server: Server, count: int, listener: socket.socket) -> bool:
    """Run a server in `count` processes until told to stop; return whether all ended well.

    The first leads, the others follow once it is open. One that dies is replaced, unless its application fails.
    """
    news, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    for each in (*_STOP, signal.SIGCHLD):
        signal.signal(each, lambda *_: None)  # its number is read from the socket
    server.opened = writer
    processes = [_started(server, listener)]
    received = 0
    while received not in _STOP and not any(process.exitcode == STARTUP_FAILURE for process in processes):
        received = news.recv(1)[0]
        server.is_leader = server.is_leader and received != 0
        alive = [process for process in processes if process.exitcode in (None, STARTUP_FAILURE)]
        if len(alive) < len(processes):
            for process in processes:
                if process not in alive:
                    forget_process(process.pid)
            time.sleep(RESPAWN_SECONDS)
        missing = (1 if server.is_leader else count) - len(alive)
        processes = [*alive, *(_started(server, listener) for _ in range(missing))]
    listener.close()
    for process in processes:
        process.terminate()
    while any(process.is_alive() for process in processes):
        if (received := news.recv(1)[0]) in _STOP:
            for process in processes:
                process.kill()
            signal.set_wakeup_fd(-1)  # the socket is closed before they have ended
            sys.exit(128 + received)  # what is open around this is closed
    # -SIGTERM: stopped before its signal handler was installed.
    return all(process.exitcode in (0, -signal.SIGTERM) for process in processes)


def _started(server: Server, listener: socket.socket) -> SpawnProcess:
    process = multiprocessing.get_context("spawn").Process(target=serve_child, args=(server, [listener]))
    process.start()
    return process
