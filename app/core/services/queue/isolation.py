"""Isolation: run each suspect (a job of a lost process) in a process of its own, so that a crash harms no other job.

    runner ──(socket: a claim)──> helper, `kit worker --alone` ── fork ──> the job's process
           <── "begun", "stored", how it ended ──

The helper has imported everything and opened nothing, so a fork of it is ready in a moment. If the runner's process
dies, both see the socket close, and the job is handed back: it did not cause that.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context

from sqlalchemy.engine import URL

from app.core.configs import PROJECT_ROOT
from app.core.db.jobs import Job
from app.core.services.failures import describe
from app.core.services.log import logger
from app.core.services.queue.execution import Write, execute
from app.core.services.queue.store import JobStore, Outcome, handed_back

IDLE_SECONDS = 30.0
"""Seconds after which an idle helper is stopped."""
ENDING_SECONDS = 0.5
"""Seconds that the processes get to end before they are killed."""

_BEGUN = b"begun\n"
_STORED = b"stored\n"


class Isolation:
    """The runner's side: starts the helper for the first suspect, and stops it when it is idle."""

    def __init__(self, database: URL) -> None:
        self._database = database.render_as_string(hide_password=False)
        self._helper: subprocess.Popen[bytes] | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def run(self, job: Job, stored: Callable[[], object]) -> str | None:
        """Run a claimed job in a process; return how that ended, None if it ended before the job began.

        `stored` is called once the outcome is in the table. Cancelling the call ends the process.
        """
        if self._idle:
            self._idle.cancel()
        ending, begun = None, False
        try:
            if self._helper is None or self._helper.poll() is not None:
                await self._start()
            claim = {"id": job.id, "attempts": job.attempts, "started_at": str(job.started_at), "url": self._database}
            self._writer.write(json.dumps(claim).encode() + b"\n")
            while (line := await self._reader.readline()) in (_BEGUN, _STORED):
                begun = True
                if line == _STORED:
                    stored()
            ending = line.decode().strip() or None
        except OSError as exc:  # no memory, no descriptor; or the helper ended with a claim unread
            logger.error("the helper process for suspects cannot be used", error=describe(exc))
        finally:
            if ending is None:
                await self.close()
        if ending:
            self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._retire)
        return (ending or "ended with its parent") if begun else None

    async def close(self) -> None:
        """Stop the helper and the job it runs, if any."""
        if self._idle:
            self._idle.cancel()
        helper, self._helper = self._helper, None
        if helper is None:
            return
        self._writer.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(ENDING_SECONDS):
                    while helper.poll() is None:  # noqa: ASYNC110  see `_start`
                        await asyncio.sleep(0.01)
        finally:
            if helper.poll() is None:
                os.killpg(helper.pid, signal.SIGKILL)
                helper.wait()

    def _retire(self) -> None:
        self._retiring = asyncio.get_running_loop().create_task(self.close())

    async def _start(self) -> None:
        ours, its = socket.socketpair()
        try:
            # Not asyncio's, which under uvloop hands on the socket that the server listens on.
            helper = subprocess.Popen(  # noqa: ASYNC220  takes a moment
                [sys.executable, "-m", "app.cli", "worker", "--alone"],
                cwd=PROJECT_ROOT,
                stdin=its.fileno(),
                start_new_session=True,  # killed as a group; a signal to our group is ours to pass on
            )
        except OSError:
            ours.close()
            raise
        finally:
            its.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self._helper = helper


def serve_helper(run: Callable[[dict[str, str], "Control"], None]) -> None:
    """Fork a process for each claim read from standard input, and report how it ended.

    Call it in a process without open connections or other threads. `run` is called in the forked process.
    """
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: None)  # the runner decides when a job ends
    control = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)  # programs that jobs start must not read claims
    for line in control.makefile("rb"):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run(json.loads(line), Control(control))
                code = 0
            except Exception:
                logger.exception("the process of a job failed")
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        with suppress(BrokenPipeError):  # the runner is gone: there is no next line either
            control.sendall(f"{_how(os.waitstatus_to_exitcode(status))}\n".encode())


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"


class Control:
    """The job's side of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def run(self, claim: dict[str, str], store: JobStore, write: Write) -> None:
        """Run a claimed job and `write` its outcome; hand the job back if the runner dies meanwhile."""
        job = await store.find_claimed(int(claim["id"]), int(claim["attempts"]), claim["started_at"])
        if job is None:
            return
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:  # noqa: ASYNC230  a file of the kernel
            score.write("1000")  # when memory runs out, the kernel kills this process first
        orphaned = asyncio.Event()
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch, args=(loop, orphaned), daemon=True).start()

        async def write_and_say(outcome: Outcome) -> bool:
            held = await write(outcome)
            self._connection.sendall(_STORED)
            return held

        self._connection.sendall(_BEGUN)  # what ends this process from here on is the job's doing
        running = loop.create_task(execute(job, write_and_say), context=Context())
        gone = loop.create_task(orphaned.wait())
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
            return
        running.cancel()
        await asyncio.wait({running}, timeout=ENDING_SECONDS / 2)
        await write(handed_back(job))

    def _watch(self, loop: asyncio.AbstractEventLoop, orphaned: asyncio.Event) -> None:
        while self._connection.recv(1):
            pass
        loop.call_soon_threadsafe(orphaned.set)
        threading.Event().wait(ENDING_SECONDS * 10)
        os._exit(1)  # the job blocks the event loop, so it could not be cancelled
