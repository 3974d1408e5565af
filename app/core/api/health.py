"""Is the process alive, and can it serve?

Ready means that the database answers and has the tables this code expects. Redis being away is `degraded`:
everything goes on without it, so taking every instance out of service would make an outage of a slowdown.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Literal

from fastapi import APIRouter
from fastapi import Response as HttpResponse
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError

from app.core.api.responses import Response
from app.core.db.installation import KnownRevisions, current_redis, expected_revisions
from app.core.db.integrity import lacks_tables
from app.core.db.session import current_database
from app.core.exceptions import UnavailableError
from app.core.services.log import logger

CHECK_SECONDS = 2.0
RETRY_SECONDS = 5

State = Literal["ok", "failed", "ahead"]
"""`ahead`: newer code has migrated the database; this process goes on until it is replaced."""

_ESSENTIAL = ("database", "migrations")


class Component(BaseModel):
    """One thing the service uses, and how long it took to answer."""

    status: State
    duration_ms: float


Components = Mapping[str, Component]


class NotReady(UnavailableError):
    """Something the service cannot do without does not answer."""

    code = "not_ready"

    def __init__(self, components: Components) -> None:
        failed = ", ".join(name for name in _ESSENTIAL if _has_failed(components, name))
        super().__init__(f"Not ready: {failed}.", retry_after=RETRY_SECONDS)
        self.extra = {"checks": _states(components)}


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """The state of each component."""

    status: Literal["ok", "degraded"]
    checks: dict[str, State]


class Summary(BaseModel):
    """Whether the service can serve."""

    status: Literal["ok", "unavailable"]


class Details(BaseModel):
    """Every component; no address, no version, no reason: those are in the log."""

    status: Literal["ok", "degraded", "unavailable"]
    components: dict[str, Component]


router = APIRouter(prefix="/health", tags=["health"])
_UNAVAILABLE: dict[int | str, dict[str, Any]] = {503: {"description": "Not ready", "model": Summary}}


@router.get("/live")
async def live() -> Response[Liveness]:
    """The process answers; touches nothing else."""
    return Response(data=Liveness())


@router.get("/ready")
async def ready() -> Response[Readiness]:
    """The database answers and is migrated; 503 naming what is missing. Without Redis it is `degraded`."""
    components = await examine()
    status = status_of(components)
    if status == "unavailable":
        raise NotReady(components)
    return Response(data=Readiness(status=status, checks=_states(components)))


@router.get("", responses=_UNAVAILABLE)
async def health(response: HttpResponse) -> Summary:
    """The summary monitors look at first: `ok`, or 503 with `unavailable`."""
    status = status_of(await examine())
    _answer_503_unless_ready(response, status)
    return Summary(status="unavailable" if status == "unavailable" else "ok")


@router.get("/details", responses={503: {"description": "Not ready", "model": Response[Details]}})
async def details(response: HttpResponse) -> Response[Details]:
    """Every component, its state and how long it took to answer."""
    components = await examine()
    status = status_of(components)
    _answer_503_unless_ready(response, status)
    return Response(data=Details(status=status, components=dict(components)))


def status_of(components: Components) -> Literal["ok", "degraded", "unavailable"]:
    """The state of the service, from those of its components."""
    if any(_has_failed(components, name) for name in _ESSENTIAL):
        return "unavailable"
    return "degraded" if any(_has_failed(components, name) for name in components) else "ok"


async def examine() -> Components:
    """Ask every component; concurrent callers share one examination, so a flood of them is one query at a time."""
    parts = (current_database(), current_redis())
    task = _Shared.task
    if task is None or task.done() or _Shared.parts != parts:
        task = _Shared.task = asyncio.create_task(_examine())
        _Shared.parts = parts
    return await asyncio.shield(task)


class _Shared:
    """The examination under way."""

    task: asyncio.Task[Components] | None = None
    parts: tuple[object, ...] = ()


async def _examine() -> Components:
    questions = [_outcome(("database", "migrations"), _ask_database)]
    if current_redis() is not None:
        questions.append(_outcome(("redis",), _ask_redis))
    return {name: found for answers in await asyncio.gather(*questions) for name, found in answers.items()}


async def _outcome(
    names: tuple[str, ...], ask: Callable[[], Coroutine[Any, Any, tuple[State, ...]]]
) -> dict[str, Component]:
    """The state of each of `names`, all `failed` where there is no answer in time."""
    begun = time.perf_counter()
    asking = asyncio.create_task(ask())
    asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, also when nobody waits
    states = tuple[State, ...]("failed" for _ in names)
    try:
        # Not asyncio.timeout: a driver waits for its server before it lets go of what is cancelled.
        if not (await asyncio.wait({asking}, timeout=CHECK_SECONDS))[0]:
            raise TimeoutError(f"no answer within {CHECK_SECONDS:g} s")
        states = await asking
    except Exception as exc:  # whatever it is, the answer is that this part does not work
        error = f"{type(exc).__name__}: {exc}"
        logger.warning("a part of the service does not answer", part=names[0], error=error)
    finally:
        asking.cancel()
    took = round((time.perf_counter() - begun) * 1000, 2)
    return {name: Component(status=state, duration_ms=took) for name, state in zip(names, states, strict=True)}


async def _ask_database() -> tuple[State, State]:
    lines = await asyncio.to_thread(expected_revisions())  # reads the files once, then remembers
    try:
        async with current_database().session_scope(read_only=True) as session:
            found = {line: frozenset(await session.scalars(line.applied)) for line in lines}
    except DBAPIError as exc:
        if not lacks_tables(exc.orig):
            raise
        logger.warning("the database is not migrated")
        return "ok", "failed"
    return "ok", _migrated(found)


def _migrated(found: Mapping[KnownRevisions, frozenset[str]]) -> State:
    ahead = {line for line, applied in found.items() if applied - line.revisions}
    if all(line in ahead or line.heads <= applied for line, applied in found.items()):
        return "ahead" if ahead else "ok"
    logger.warning("the database is not migrated")
    return "failed"


async def _ask_redis() -> tuple[State]:
    redis = current_redis()
    if redis is not None:
        await redis.ping()
    return ("ok",)


def _answer_503_unless_ready(response: HttpResponse, status: str) -> None:
    if status == "unavailable":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        response.headers["Retry-After"] = str(RETRY_SECONDS)


def _has_failed(components: Components, name: str) -> bool:
    return name in components and components[name].status == "failed"


def _states(components: Components) -> dict[str, State]:
    return {name: component.status for name, component in components.items()}
