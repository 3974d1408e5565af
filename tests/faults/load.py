"""A steady load of requests: what its clients saw while a part of the service failed, and what was lost of it."""

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass, field
from uuid import uuid4

import httpx

from app.core.db.jobs import JobStatus
from tests.faults.service import ROUNDS, Service, tally
from tests.utils import PASSWORD

RATE = 15
"""Requests a second. They come at their time, whether or not those before them were answered."""

WORK = ("register", "mark", "read")
KINDS = (*WORK, "live")


@dataclass(frozen=True)
class Answer:
    """What came of one request. `outcome` is the status, or the exception of a client that got no answer."""

    kind: str
    name: str
    began: float
    ended: float
    outcome: str

    @property
    def good(self) -> bool:
        return self.outcome in ("200", "201")


@dataclass
class Load:
    """Requests of several kinds in turn: accounts, jobs, reads behind a login, and whether the process is alive."""

    service: Service
    http: httpx.AsyncClient
    answers: list[Answer] = field(default_factory=list)
    broken: float = math.inf
    mended: float = math.inf
    _mark: str = field(default_factory=lambda: uuid4().hex[:8])
    _enough: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    @asynccontextmanager
    async def on(cls, service: Service, port: int | None = None) -> AsyncIterator["Load"]:
        """Load on the service, or on what listens at `port` before it, for as long as the block runs."""
        limits = httpx.Limits(max_connections=None, keepalive_expiry=4)  # less than a server keeps them
        async with service.client(port=port, limits=limits) as http:
            load = cls(service, http)
            await load._log_in()
            coming = asyncio.create_task(load._come())
            try:
                yield load
            finally:
                load._enough.set()
                await coming

    def breaks(self) -> None:
        """Note that the fault begins."""
        self.broken = time.monotonic()

    def mends(self) -> None:
        """Note that all is well again: whoever comes from here on must be served."""
        self.mended = time.monotonic()

    def names(self, kind: str, *, good: bool = False) -> set[str]:
        """What was asked for, or that of which the client knows that it was done."""
        return {answer.name for answer in self.answers if answer.kind == kind and (answer.good or not good)}

    def outcomes(self, *kinds: str) -> "Counter[str]":
        """How the requests ended, those of `kinds` or all but the looks at whether the process is alive."""
        wanted = kinds or WORK
        return Counter(answer.outcome for answer in self.answers if answer.kind in wanted)

    def failed_after(self) -> list[Answer]:
        """Requests that began when all was well again, and failed."""
        return [answer for answer in self.answers if answer.began > self.mended and not answer.good]

    def milliseconds(self, share: float, *kinds: str, since: float = 0.0, until: float = math.inf) -> int:
        """The time that `share` of the requests took at most, of those that began in this span."""
        wanted = kinds or WORK
        took = sorted(
            answer.ended - answer.began
            for answer in self.answers
            if answer.kind in wanted and since <= answer.began < until
        )
        return round(took[min(len(took) - 1, int(share * len(took)))] * 1000) if took else 0

    def times(self, **span: float) -> str:
        """The time of half the requests and of 99 in 100."""
        return f"{self.milliseconds(0.5, **span)}/{self.milliseconds(0.99, **span)}"

    async def _log_in(self) -> None:
        await self._ask("register", f"{self._mark}reader")
        form = {"username": f"{self._mark}reader", "password": PASSWORD}
        answer = await self.http.post("/auth/login", data=form, headers=_from(self._mark))
        answer.raise_for_status()
        self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    async def _come(self) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                group.create_task(self._ask(KINDS[number % len(KINDS)], f"{self._mark}n{number}"))
                await asyncio.sleep(began + (number + 1) / RATE - time.monotonic())
                if self._enough.is_set():
                    break

    async def _ask(self, kind: str, name: str) -> None:
        began = time.monotonic()
        try:
            outcome = str((await self._request(kind, name)).status_code)
        except httpx.TransportError as exc:
            outcome = type(exc).__name__
        self.answers.append(Answer(kind, name, began, time.monotonic(), outcome))

    async def _request(self, kind: str, name: str) -> httpx.Response:
        headers = _from(name)
        if kind == "register":
            body = {"email": f"{name}@example.com", "username": name, "password": PASSWORD}
            return await self.http.post("/auth/register", json=body, headers=headers)
        if kind == "mark":
            return await self.http.post("/faults/marks", json={"name": name}, headers=headers)
        path = "/profile" if kind == "read" else self.http.base_url.join("/health/live")
        return await self.http.get(path, headers=headers)


def _from(name: str) -> dict[str, str]:
    """The header of a client of its own: limits count by address, where the service believes this one."""
    number = hash(name)
    return {"X-Forwarded-For": f"10.{number % 251}.{number // 251 % 251}.{number // 251**2 % 251}"}


@dataclass(frozen=True)
class Row:
    """One line of the table that `make faults` prints at its end."""

    fault: str
    answers: str
    during: str
    after: str
    live: str
    jobs: str
    lost: str


HEADS = Row("fault", "answers", "ms in it", "ms after it", "live max", "job max", "lost")
"""Times are those of 50 and 99 of 100 requests, or the longest; a job's is that from its push to its end."""

rows: list[Row] = []


def table() -> Iterator[str]:
    """What clients saw of every fault, one line each; none where no load ran."""
    lines = [astuple(row) for row in (HEADS, *rows)] if rows else []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


BEFORE, OUTAGE, AFTER = (3.0, 10.0, 10.0) if ROUNDS else (0.3, 1.5, 1.0)
"""Seconds before, during and after a fault."""


@asynccontextmanager
async def failing(
    service: Service,
    fault: str,
    break_it: Callable[[], object],
    mend_it: Callable[[], object],
    mailed: Callable[[], Iterable[str]] | None = None,
) -> AsyncIterator[Load]:
    """A load during which a part is broken while the block runs, and for a while; nothing of it may be lost.

    All the while the process is alive, and whoever comes when the part is back is served.
    """
    async with Load.on(service) as load:
        await asyncio.sleep(BEFORE)
        load.breaks()
        await asyncio.to_thread(break_it)
        try:
            await asyncio.sleep(OUTAGE)
            yield load
        finally:
            await asyncio.to_thread(mend_it)
        load.mends()
        await asyncio.sleep(AFTER)
    await settle(fault, load, mailed)
    assert set(load.outcomes("live")) == {"200"}
    assert load.failed_after() == []


async def settle(
    fault: str, load: Load, mailed: Callable[[], Iterable[str]] | None = None, *, again: bool = False
) -> None:
    """Wait until all work is done, compare it with what clients were told, and note the row for the table.

    `mailed` says who got a mail where it is not captured. `again` allows that a job runs twice: a process may be
    killed after the effect and before the outcome is stored.
    """
    service = load.service
    await service.idle(120)
    asked = {f"{name}@example.com" for name in load.names("register")}
    users = {number: address for number, address in service.users().items() if address in asked}
    heard = Counter(int(user) for (user,) in service.journal.of("heard"))
    marks = service.journal.of("marked")
    done, mails = Counter(name for name, _ in marks), Counter(mailed() if mailed else service.mail.recipients())
    promised = [f"{name}@example.com" for name in load.names("register", good=True)]
    lost = [
        *service.losses(promised, users.values()),
        *service.losses(users.values(), mails),
        *service.losses(users, heard),
        *service.losses(load.names("mark", good=True), done),
    ]
    counted = [*(mails[address] for address in users.values()), *(heard[number] for number in users)]
    twice = sum(number > 1 for number in [*counted, *(done[name] for name in load.names("mark"))])
    pushed = {answer.name: answer.ended for answer in load.answers if answer.kind == "mark" and answer.good}
    waits = [float(at) - pushed[name] for name, at in marks if name in pushed]
    tally["requests"] += len(load.answers)
    rows.append(
        Row(
            fault,
            ", ".join(f"{number} {outcome}" for outcome, number in sorted(load.outcomes().items())),
            load.times(since=load.broken, until=load.mended),
            load.times(since=load.mended),
            f"{load.milliseconds(1, 'live')}",
            f"{max(waits, default=0) * 1000:.0f}",
            f"{len(lost)} of {len(promised) + len(pushed)}" + (f", {twice} twice" if twice else ""),
        )
    )
    assert not lost
    assert {job.status for job in service.jobs()} == {JobStatus.COMPLETED}
    assert again or not twice
