"""Dependencies of routes, tasks and listeners: sessions, services, decorators."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.session import current_database, session_scope
from app.core.exceptions import AuthenticationError
from app.core.identity import (
    AUTHENTICATED,
    Principal,
    admits,
    current_authenticators,
    identifies_caller,
    remember_principal,
)
from app.core.services.cache import CacheServiceInterface, cached, invalidates
from app.core.services.cache.interface import current_cache
from app.core.services.cache.results import INDEPENDENT
from app.core.services.events import EventsServiceInterface, listener
from app.core.services.events.interface import current_events
from app.core.services.http import HttpClientInterface
from app.core.services.http.interface import current_http
from app.core.services.log import logger
from app.core.services.mail import MailServiceInterface
from app.core.services.mail.interface import current_mail
from app.core.services.queue import QueueServiceInterface, outside_requests, queued
from app.core.services.queue.interface import current_queue

T = TypeVar("T")


def configured(connection: HTTPConnection, getter: Callable[[], T]) -> T:
    """Call `getter`, or the replacement of it in the application's `dependency_overrides`.

    For settings: as a dependency, a plain function costs every request a trip through the thread pool.
    """
    found: T = connection.app.dependency_overrides.get(getter, getter)()
    return found


async def db_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    """The request's unit of work: read-only for GET and HEAD, committed before the answer leaves.

    A websocket has none, as it would stay open with it: the application refuses to start where one asks for it.
    """
    if connection.scope["type"] == "websocket":
        async with current_database().session(read_only=True) as unused:
            yield unused
        return
    read_only = connection.scope["method"] in ("GET", "HEAD")
    async with session_scope(read_only=read_only) as session:
        yield session


setattr(db_session, INDEPENDENT, True)  # only the method decides which


def short_unit(dependency: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """Let a dependency with the parameters `connection` and `db` be asked for on a websocket or by a stream too.

    There `db` is a read-only unit that ends with the call.
    """

    @wraps(dependency)
    async def call(**given: Any) -> T:
        if given["connection"].scope["type"] != "websocket":
            return await dependency(**given)
        async with session_scope(read_only=True) as db:
            return await dependency(**{**given, "db": db})

    call.__short_unit__ = True  # type: ignore[attr-defined]  # for the check at start
    return call


@outside_requests(db_session)
async def task_session() -> AsyncIterator[AsyncSession]:
    """The unit of work of a task or listener: committed when that has ended well."""
    async with session_scope() as session:
        yield session


async def cache_service() -> CacheServiceInterface:
    """The cache of this process."""
    return current_cache()


async def events_service() -> EventsServiceInterface:
    """The event service of this process."""
    return current_events()


async def queue_service() -> QueueServiceInterface:
    """The queue of this process."""
    return current_queue()


async def http_client() -> HttpClientInterface:
    """The HTTP client of this process."""
    return current_http()


async def mail_service() -> MailServiceInterface:
    """The mail service of this process."""
    return current_mail()


# "function" scope: the unit commits before the response starts, so a failing commit is still an error answer.
DBSession = Annotated[AsyncSession, Depends(db_session, scope="function")]
CacheService = Annotated[CacheServiceInterface, Depends(cache_service)]
EventsService = Annotated[EventsServiceInterface, Depends(events_service)]
QueueService = Annotated[QueueServiceInterface, Depends(queue_service)]
HttpClient = Annotated[HttpClientInterface, Depends(http_client)]
MailService = Annotated[MailServiceInterface, Depends(mail_service)]


async def authenticate(connection: HTTPConnection, *, db: AsyncSession) -> Principal | None:
    """Verify the first credential of the request that an authenticator knows; None without any."""
    for authenticator in current_authenticators():
        if principal := await authenticator.authenticate(connection, db=db):
            return principal
    return None


@identifies_caller
@short_unit
async def optional_principal(connection: HTTPConnection, db: DBSession) -> Principal | None:
    """The caller, None without a credential; a bad one is refused."""
    if principal := await authenticate(connection, db=db):
        remember_principal(connection, principal)
    return principal


OptionalPrincipal = Annotated[Principal | None, Depends(optional_principal)]


@admits(AUTHENTICATED)
async def current_principal(principal: OptionalPrincipal) -> Principal:
    """The caller; raises AuthenticationError without a credential."""
    if principal is None:
        raise AuthenticationError
    return principal


CurrentPrincipal = Annotated[Principal, Depends(current_principal)]

__all__ = [
    "CacheService",
    "CurrentPrincipal",
    "DBSession",
    "EventsService",
    "HttpClient",
    "MailService",
    "OptionalPrincipal",
    "QueueService",
    "authenticate",
    "cache_service",
    "cached",
    "configured",
    "current_principal",
    "db_session",
    "events_service",
    "http_client",
    "invalidates",
    "listener",
    "logger",
    "mail_service",
    "optional_principal",
    "queue_service",
    "queued",
    "short_unit",
]
