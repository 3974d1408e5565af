"""Health checks: liveness and readiness.

Ready means that the database answers and has the tables this code expects. Redis being away is `degraded`:
everything goes on without it, so taking every instance out of service would make an outage of a slowdown. The same is
true of what modules check, unless they say that they cannot serve without it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

from fastapi import APIRouter
from fastapi import Response as HttpResponse
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy.exc import DBAPIError
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.api.responses import Response
from app.core.api.routes import route_of
from app.core.db.installation import KnownRevisions, current_redis, expected_revisions
from app.core.db.integrity import lacks_tables
from app.core.db.session import Database, current_database
from app.core.exceptions import UnavailableError
from app.core.identity import public
from app.core.process import Slot, lifecycle
from app.core.services.log import logger

CHECK_SECONDS = 2.0
VALID_SECONDS = 1.0
RETRY_SECONDS = 5
HOLD_LOOK_SECONDS = 0.05

State = Literal["ok", "failed", "ahead"]
"""`ahead`: newer code has migrated the database; this process goes on until it is replaced."""

_ESSENTIAL = ("database", "migrations")


@dataclass(frozen=True, eq=False)
class HealthCheck:
    """A health check of a module: `ask` raises if the component does not work, and has two seconds.

    If it fails, the service is `degraded`; if it is `essential`, not ready.
    """

    name: str
    ask: Callable[[], Awaitable[object]]
    essential: bool = False


current_checks = Slot[tuple[HealthCheck, ...]]()
"""Health checks of the installed modules, named `<module>.<name>`."""


class Component(BaseModel):
    """One thing the service uses, and how long it took to answer."""

    status: State
    duration_ms: float


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """The state of each component."""

    status: Literal["ok", "degraded"]
    checks: dict[str, State]


class Summary(BaseModel):
    """The state of the service in one word."""

    status: Literal["ok", "unavailable"]


class Details(BaseModel):
    """Every component; no address, no version, no reason: those are in the log."""

    status: Literal["ok", "degraded", "unavailable"]
    components: dict[str, Component]

    @property
    def failed(self) -> list[str]:
        """The components that do not answer, or not as they should."""
        return [name for name, component in self.components.items() if component.status == "failed"]


class NotReady(UnavailableError):
    """Something the service cannot do without does not answer."""

    code = "not_ready"

    def __init__(self, found: Details) -> None:
        own = _own_state()
        failed = ", ".join(name for name in found.failed if own or name in _essential())
        super().__init__(f"Not ready: {failed}.", retry_after=RETRY_SECONDS)
        self.extra = {"checks": _checks(found)}


router = APIRouter(prefix="/health", tags=["health"], dependencies=[public])


@router.get("/live")
async def live() -> Response[Liveness]:
    """The process answers; touches nothing else."""
    return Response(data=Liveness())


@router.get("/ready")
async def ready() -> Response[Readiness]:
    """The database answers and is migrated; 503 naming what is missing. Without Redis it is `degraded`."""
    found = await examine()
    if found.status == "unavailable":
        raise NotReady(found)
    return Response(data=Readiness(status=found.status, checks=_checks(found)))


@router.get("", responses={503: {"description": "Not ready", "model": Summary}})
async def health(response: HttpResponse) -> Summary:
    """The summary monitors look at first: `ok`, or 503 with `unavailable`."""
    found = await _examine_for(response)
    return Summary(status="unavailable" if found.status == "unavailable" else "ok")


@router.get("/details", responses={503: {"description": "Not ready", "model": Response[Details]}})
async def details(response: HttpResponse) -> Response[Details]:
    """Every component, its state and how long it took to answer."""
    return Response(data=await _examine_for(response))


class StartGate:
    """Holds everything but health checks until the service has started; answers 503 where that takes long.

    A proxy does not repeat a POST that was answered with 503: a restart of seconds costs no request an error.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if lifecycle.starting is not None and scope["type"] in ("http", "websocket"):
            route = route_of(scope)
            if route is None or route.endpoint not in (live, ready, health, details):
                while lifecycle.starting is not None:
                    if time.monotonic() >= lifecycle.hold_until:
                        raise NotReady(await examine())
                    await asyncio.sleep(HOLD_LOOK_SECONDS)
        await self.app(scope, receive, send)


async def _examine_for(response: HttpResponse) -> Details:
    """Examine the components; make `response` a 503 unless the service is ready."""
    found = await examine()
    if found.status == "unavailable":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        response.headers["Retry-After"] = str(RETRY_SECONDS)
    return found


def _checks(found: Details) -> dict[str, State]:
    return {name: component.status for name, component in found.components.items()}


def _essential() -> set[str]:
    return {*_ESSENTIAL, *(check.name for check in current_checks() if check.essential)}


_Parts = tuple[Database, Redis | None, tuple[HealthCheck, ...]]
_latest: dict[_Parts, tuple[float, asyncio.Task[Details]]] = {}
"""Latest examination and its start time, keyed by the components it asks."""

_asked: dict[str, asyncio.Task[tuple[State, ...]]] = {}
"""The latest question to each part."""


def _own_state() -> Mapping[str, Literal["ok", "failed"]] | None:
    return {"shutdown": "failed"} if lifecycle.grace_ends is not None else lifecycle.starting


async def examine() -> Details:
    """Check every component; calls within a second share one examination.

    A process that starts or stops is not ready, whatever its components answer.
    """
    if own := _own_state():
        components = {name: Component(status=state, duration_ms=0) for name, state in own.items()}
        return Details(status="unavailable", components=components)
    parts = (current_database(), current_redis(), current_checks())
    now = time.monotonic()
    begun, task = _latest.get(parts, (now, None))
    if task is None or (task.done() and now - begun >= VALID_SECONDS):
        _latest.clear()
        task = asyncio.create_task(_examine(*parts))
        _latest[parts] = now, task
    return await asyncio.shield(task)


async def _examine(database: Database, redis: Redis | None, checks: tuple[HealthCheck, ...]) -> Details:
    questions = [_outcome(_ESSENTIAL, partial(_ask_database, database))]
    if redis is not None:
        checks = (HealthCheck("redis", redis.ping), *checks)
    questions += [_outcome((check.name,), partial(_ask, check)) for check in checks]
    found = Details(status="ok", components={})
    for outcome in await asyncio.gather(*questions):
        found.components |= outcome
    if found.failed:
        found.status = "unavailable" if _essential() & set(found.failed) else "degraded"
    return found


async def _outcome(
    names: tuple[str, ...], ask: Callable[[], Coroutine[Any, Any, tuple[State, ...]]]
) -> dict[str, Component]:
    """Return the state of each of `names`; all are `failed` if there is no answer in time."""
    begun = time.perf_counter()
    states = tuple[State, ...]("failed" for _ in names)
    try:
        if (before := _asked.get(names[0])) and not before.done():
            raise TimeoutError("an earlier question, which was cancelled, has not ended")
        asking = _asked[names[0]] = asyncio.create_task(ask())
        asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, also when nobody waits
        try:
            # Not asyncio.timeout: a driver waits for its server before it lets go of what is cancelled.
            if not (await asyncio.wait({asking}, timeout=CHECK_SECONDS))[0]:
                raise TimeoutError(f"no answer within {CHECK_SECONDS:g} s")
        finally:
            asking.cancel()
        if asking.cancelled():  # by itself: its result would cancel whoever asks for our state
            raise RuntimeError("what was asked was cancelled")
        states = asking.result()
    except Exception as exc:  # whatever it is, the answer is that this part does not work
        error = f"{type(exc).__name__}: {exc}"
        logger.warning("a part of the service does not answer", part=names[0], error=error)
    took = round((time.perf_counter() - begun) * 1000, 2)
    return {name: Component(status=state, duration_ms=took) for name, state in zip(names, states, strict=True)}


async def _ask_database(database: Database) -> tuple[State, State]:
    state = await migration_state(database, await asyncio.to_thread(expected_revisions()))  # read once
    if state == "failed":
        logger.warning("the database is not migrated")
    return "ok", state


async def migration_state(database: Database, lines: Iterable[KnownRevisions]) -> State:
    """Compare the revisions that the database has with those of this code."""
    try:
        async with database.session_scope(read_only=True) as session:
            found = {line: frozenset(await session.scalars(line.applied)) for line in lines}
    except DBAPIError as exc:
        if not lacks_tables(exc.orig):
            raise
        return "failed"
    ahead = {line for line, applied in found.items() if applied - line.revisions}
    if all(line in ahead or line.heads <= applied for line, applied in found.items()):
        return "ahead" if ahead else "ok"
    return "failed"


async def _ask(check: HealthCheck) -> tuple[State]:
    await check.ask()
    return ("ok",)
