"""Routes that leave work behind, or take their time."""

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel

from app.auth import UserCreated
from app.core.deps import DBSession, EventsService, MailService, QueueService
from app.core.exceptions import ConflictError
from app.core.services.mail import EmailData
from tests.faults.emails import Ticket
from tests.faults.tasks import Work

router_v1 = APIRouter(prefix="/faults", tags=["faults"])

NOBODY = -1
"""The user of an event whose transaction is rolled back."""


class Order(BaseModel):
    """So many tasks, each of which takes so long."""

    count: int = 1
    seconds: float = 0.0


@router_v1.post("/work")
async def work(order: Order, db: DBSession, queue: QueueService) -> None:
    """Push tasks."""
    for _ in range(order.count):
        await queue.push(Work, {"seconds": order.seconds})


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


@router_v1.get("/slow")
async def slow(seconds: float) -> str:
    """An answer that takes its time."""
    await asyncio.sleep(seconds)
    return "x" * 100_000
