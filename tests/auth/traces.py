"""A user who leaves traces everywhere, and a search for them in every table."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
from fastapi import FastAPI
from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.emails.templates import Welcome
from app.auth.tasks import EraseDeletedUsers
from app.core.db import session_scope
from app.core.deps import mail_service, queue_service
from app.core.services.mail import EmailData
from tests.utils import PASSWORD, freeze

Drain = Callable[[], Awaitable[int]]

EMAIL, LATER_EMAIL, NAME = "canary.box@example.com", "canary.two@example.com", "canaryname"
ADDRESS, AGENT = "203.0.113.77", "CanaryAgent/1.0"
IDS = ("canary-request", "canary-talk")
CANARIES = (EMAIL, LATER_EMAIL, NAME, ADDRESS, AGENT)
EXPORT = "/api/v1/profile/export"


@asynccontextmanager
async def browsing(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose address and headers are nobody else's."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False, client=(ADDRESS, 50000))
    headers = {"User-Agent": AGENT, "X-Request-ID": IDS[0], "X-Conversation-ID": IDS[1]}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
        yield http


async def live(http: httpx.AsyncClient, drain: Drain) -> int:
    """Register, and do what leaves traces everywhere; return the id."""
    account = {"email": EMAIL, "username": NAME, "password": PASSWORD}
    user_id: int = (await http.post("/api/v1/auth/register", json=account)).json()["data"]["id"]
    await http.post("/api/v1/auth/login", json={"username": NAME, "password": "wrong"})
    tokens = (await http.post("/api/v1/auth/login", json={"username": NAME, "password": PASSWORD})).json()
    http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    await http.post("/api/v1/auth/restore-password", json={"email": EMAIL})
    await drain()
    change = {"email": LATER_EMAIL, "current_password": PASSWORD}
    assert (await http.patch("/api/v1/profile", json=change)).status_code == 200
    await drain()
    return user_id


async def greet(email: str) -> None:
    """Queue a mail to the address."""
    template = Welcome(project="Example", username=NAME, url=None)
    await (await mail_service()).queue(template, EmailData(subject="Hello", recipients=[email]))


async def delete(http: httpx.AsyncClient) -> None:
    answer = await http.request("DELETE", "/api/v1/profile", json={"current_password": PASSWORD})
    assert answer.status_code == 204


async def clock(drain: Drain) -> None:
    """Run the scheduled task, and what it queues."""
    async with session_scope():
        await (await queue_service()).push(task=EraseDeletedUsers)
    await drain()


async def after(drain: Drain, time: timedelta) -> None:
    """Let the clock strike so much later, and again when what still had to run has run."""
    for extra in (0, 2, 4):
        with freeze(time + timedelta(hours=extra)):
            await clock(drain)


async def contents(db: AsyncSession, *, without: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Every row of every table of the database, as text."""
    db.expire_all()
    connection = await db.connection()
    tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    return {
        name: sorted(str(tuple(row)) for row in await db.execute(text(f'SELECT * FROM "{name}"')))
        for name in tables
        if name not in without
    }


async def traces(db: AsyncSession, *canaries: str) -> list[str]:
    """Which table holds which of these, in any column."""
    return [
        f"{table}: {canary}"
        for table, rows in (await contents(db)).items()
        for canary in canaries or CANARIES
        if any(canary.casefold() in row.casefold() for row in rows)
    ]
