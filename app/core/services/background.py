"""Pending work of a request or job, and tracked background tasks of the process."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any

from app.core.db.session import session_scope
from app.core.process import Slot
from app.core.services.log import logger
from app.core.services.log.context import conversation_id, correlation, request_id

_pending: ContextVar["PendingWork | None"] = ContextVar("pending_work", default=None)


class PendingWork:
    """Work to finish before the answer to a request leaves or a job ends, in the order it was added."""

    def __init__(self) -> None:
        self._work: list[Callable[[], Awaitable[None]]] = []
        self.finished = False

    def add(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have `work` called by `finish`."""
        self._work.append(work)

    async def finish(self) -> None:
        """Do all of it, then raise the first failure; work that comes up later is not this request's any more."""
        self.finished = True
        failure: Exception | None = None
        for work in self._work:
            try:
                await work()
            except Exception as exc:
                if failure:
                    logger.error("pending work of a request or job failed", exc_info=exc)
                failure = failure or exc
        if failure:
            raise failure


@contextmanager
def pending_work() -> Iterator[PendingWork]:
    """Collect the pending work of the block; whoever opens it calls `finish`."""
    pending = PendingWork()
    token = _pending.set(pending)
    try:
        yield pending
    finally:
        pending.finished = True
        _pending.reset(token)


def current_pending() -> PendingWork | None:
    """Return the pending work of the request or job this code runs in, while something can be added to it."""
    pending = _pending.get()
    return None if pending is None or pending.finished else pending


class Background:
    """Tracked asyncio tasks: their errors are logged, and closing waits for them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], failure: str) -> None:
        """Start `work`; log `failure` with the traceback if it raises.

        It has a context of its own: the caller's unit of work may end first.
        """
        guarded = self.guard(work, failure, request_id(), conversation_id())
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # the thread of a route that is not `async`
            self._loop.call_soon_threadsafe(self._start, guarded)
        else:
            self._start(guarded)

    async def idle(self) -> None:
        """Wait until nothing is running."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self, grace: float) -> None:
        """Wait up to `grace` seconds for what is running, then cancel it."""
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=grace)
        for task in late:
            task.cancel()
        if late:  # bounded too: a task may ignore that it is cancelled
            await asyncio.wait(late, timeout=1)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def guard(
        work: Coroutine[Any, Any, None], failure: str, request: str | None, conversation: str | None
    ) -> None:
        """Wait for `work`; an error is logged, with these ids, and goes no further."""
        with correlation(request, conversation):
            try:
                await work
            except Exception:
                logger.exception(failure)


current_background = Slot[Background]()
"""The background tasks of this process."""


def write_after_unit(write: Callable[..., Awaitable[object]], failure: str) -> None:
    """Call `write` with `db`, a unit of its own, when that of the request has ended, well or not.

    Before the answer leaves, which does not fail with it: an error is logged as `failure`. Without a request, as on a
    websocket, at once and in the background.
    """

    async def run() -> None:
        async with session_scope() as db:
            await write(db=db)

    if pending := current_pending():
        pending.add(lambda: Background.guard(run(), failure, request_id(), conversation_id()))
    else:
        current_background().spawn(run(), failure)
