"""What routes, services, tasks and listeners ask for: sessions, services, decorators."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated, TypeVar

from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.runtime import runtime
from app.core.services.cache import CacheServiceInterface, cached, invalidates
from app.core.services.events import EventsServiceInterface, listener
from app.core.services.log import logger
from app.core.services.mail import MailServiceInterface
from app.core.services.queue import QueueServiceInterface, outside_requests, queued

T = TypeVar("T")


def configured(connection: HTTPConnection, getter: Callable[[], T]) -> T:
    """What `getter` gives, or what the application's `dependency_overrides` put in its place.

    For settings: as a dependency, a plain function costs every request a trip through the thread pool.
    """
    found: T = connection.app.dependency_overrides.get(getter, getter)()
    return found


async def db_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    """The request's unit of work: read-only for GET and HEAD, committed before the answer leaves."""
    read_only = connection.scope.get("method") in ("GET", "HEAD")
    async with runtime().database.session_scope(read_only=read_only) as session:
        yield session


@outside_requests(db_session)
async def task_session() -> AsyncIterator[AsyncSession]:
    """The unit of work of a task or listener: committed when that has ended well."""
    async with runtime().database.session_scope() as session:
        yield session


async def cache_service() -> CacheServiceInterface:
    """The cache of this process."""
    return runtime().cache


async def events_service() -> EventsServiceInterface:
    """The event service of this process."""
    return runtime().events


async def queue_service() -> QueueServiceInterface:
    """The queue of this process."""
    return runtime().queue


async def mail_service() -> MailServiceInterface:
    """The mail service of this process."""
    return runtime().mail


# "function" scope: the unit commits before the response starts, so a failing commit is still an error answer.
DBSession = Annotated[AsyncSession, Depends(db_session, scope="function")]
CacheService = Annotated[CacheServiceInterface, Depends(cache_service)]
EventsService = Annotated[EventsServiceInterface, Depends(events_service)]
QueueService = Annotated[QueueServiceInterface, Depends(queue_service)]
MailService = Annotated[MailServiceInterface, Depends(mail_service)]

__all__ = [
    "CacheService",
    "DBSession",
    "EventsService",
    "MailService",
    "QueueService",
    "cache_service",
    "cached",
    "configured",
    "db_session",
    "events_service",
    "invalidates",
    "listener",
    "logger",
    "mail_service",
    "queue_service",
    "queued",
]
