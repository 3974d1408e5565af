"""Routes that leave work behind, or take their time."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from uuid import uuid4

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from app.auth import UserCreated
from app.core.api import ConfigurableRateLimiter
from app.core.deps import CacheService, DBSession, EventsService, MailService, QueueService, cached
from app.core.exceptions import ConflictError
from app.core.services.mail import EmailData
from tests.faults.emails import Ticket
from tests.faults.tasks import Mark, Work

router_v1 = APIRouter(prefix="/faults", tags=["faults"])

LIMIT = 20
"""Calls of /limited in a minute."""

NOBODY = -1
"""The user of an event whose transaction is rolled back."""


class Order(BaseModel):
    """So many tasks, each of which takes so long."""

    count: int = 1
    seconds: float = 0.0


class Marked(BaseModel):
    """What a mark says."""

    name: str


@router_v1.post("/work")
async def work(order: Order, db: DBSession, queue: QueueService) -> None:
    """Push tasks."""
    for _ in range(order.count):
        await queue.push(Work, {"seconds": order.seconds})


@router_v1.post("/marks")
async def marks(mark: Marked, db: DBSession, queue: QueueService) -> None:
    """Push one task that can be told from all others."""
    await queue.push(Mark, {"name": mark.name})


@router_v1.post("/mails")
async def mails(order: Order, db: DBSession, mail: MailService) -> None:
    """Queue mails."""
    for seat in range(order.count):
        data = EmailData(subject="Your ticket", recipients=[f"seat{seat}@example.com"])
        await mail.queue(Ticket(name="Zoë", seat=seat), data)


@router_v1.post("/refused")
async def refused(db: DBSession, queue: QueueService, events: EventsService) -> None:
    """Push a task and tell an event, and then think better of it."""
    await queue.push(Work)
    events.dispatch(UserCreated(user_id=NOBODY))
    raise ConflictError


@router_v1.get("/limited", dependencies=[Depends(ConfigurableRateLimiter(times=LIMIT, seconds=60))])
async def limited() -> int:
    """Tell which process served it."""
    return os.getpid()


@router_v1.get("/cached")
@cached(ttl=60, tags=["faults"], private=False)
async def kept() -> str:
    """Whatever was computed last; another value each time it is."""
    return uuid4().hex


@router_v1.post("/forget")
async def forget(cache: CacheService) -> bool:
    """Invalidate that."""
    return await cache.invalidate("faults")


@router_v1.get("/slow")
async def slow(seconds: float) -> str:
    """An answer that takes its time."""
    await asyncio.sleep(seconds)
    return "x" * 100_000


@router_v1.get("/stream")
async def stream() -> StreamingResponse:
    """An answer without end."""

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"piece\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(pieces())


@router_v1.get("/blocked")
async def blocked(seconds: float) -> None:
    """An answer that holds up all others."""
    time.sleep(seconds)  # noqa: ASYNC251  that is the point


@router_v1.get("/process")
async def process() -> int:
    """Which process answers."""
    return os.getpid()
