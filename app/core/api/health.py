"""Is the process alive, and can it serve?"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.core.api.responses import Response
from app.core.exceptions import UnavailableError
from app.core.runtime import runtime
from app.core.services.log import logger

CHECK_SECONDS = 2.0

State = Literal["ok", "failed"]


class NotReady(UnavailableError):
    """Something the service needs does not answer."""

    code = "not_ready"

    def __init__(self, checks: dict[str, State]) -> None:
        failed = ", ".join(name for name, state in checks.items() if state == "failed")
        super().__init__(f"Does not answer: {failed}.", retry_after=5)
        self.extra = {"checks": checks}


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(Liveness):
    """What was asked, and that it answered."""

    checks: dict[str, State]


router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live")
async def live() -> Response[Liveness]:
    """The process answers; touches nothing else."""
    return Response(data=Liveness())


@router.get("/ready")
async def ready() -> Response[Readiness]:
    """Database and Redis answer; 503 naming the one that does not."""
    return Response(data=Readiness(checks=await _checked()))


@router.get("")
async def health() -> Response[Readiness]:
    """The summary people and monitors look at first; the same as `/health/ready`."""
    return Response(data=Readiness(checks=await _checked()))


async def _checked() -> dict[str, State]:
    asked: dict[str, Coroutine[Any, Any, None]] = {"database": _ask_database()}
    if runtime().redis is not None:
        asked["redis"] = _ask_redis()
    states = await asyncio.gather(*(_state_of(name, question) for name, question in asked.items()))
    checks = dict(zip(asked, states, strict=True))
    if "failed" in states:
        raise NotReady(checks)
    return checks


async def _state_of(name: str, question: Coroutine[Any, Any, None]) -> State:
    asking = asyncio.create_task(question)
    asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # seen, also when nobody waits
    try:
        # Not asyncio.timeout: a driver waits for its server before it lets go of what is cancelled.
        if not (await asyncio.wait({asking}, timeout=CHECK_SECONDS))[0]:
            raise TimeoutError(f"no answer within {CHECK_SECONDS:g} s")
        await asking
    except (SQLAlchemyError, RedisError, OSError) as exc:  # TimeoutError is an OSError
        logger.warning("a part of the service does not answer", part=name, error=f"{type(exc).__name__}: {exc}")
        return "failed"
    finally:
        asking.cancel()
    return "ok"


async def _ask_database() -> None:
    async with runtime().database.session_scope(read_only=True) as session:
        await session.execute(text("SELECT 1"))


async def _ask_redis() -> None:
    redis = runtime().redis
    if redis is not None:
        await redis.ping()
