"""Limits on how often one client may call."""

import math
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, TypeAlias

from fastapi import Request, Response
from fastapi_limiter.depends import RateLimiter
from pyrate_limiter import Decision, Limiter, RateItem
from redis.exceptions import RedisError

from app.core.api.limiter_windows import Windows, windows
from app.core.configs import get_settings
from app.core.exceptions import RateLimitedError
from app.core.runtime import runtime
from app.core.services.log import logger

Identify: TypeAlias = Callable[[Request], Awaitable[str]]

REDIS_PAUSE = 1.0
"""For how many seconds Redis is not asked again after it did not answer."""


async def client_address(request: Request) -> str:
    """The caller's address; an IPv6 caller is its /64, which is what one customer is given."""
    host = request.client.host if request.client else "unknown"
    try:
        address = ip_address(host)
    except ValueError:
        return host[:64]
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ip_network((int(address), 64), strict=False))


class ConfigurableRateLimiter(RateLimiter):
    """At most `times` calls in any `seconds` for each client; the next one is a RateLimitedError.

    A dependency of a route or a router:

        @router.post("/login", dependencies=[Depends(ConfigurableRateLimiter(times=5, seconds=60))])

    Without a `name` each path operation counts for itself; limits of one name and rate count together.
    `key` tells clients apart, by default by address. Windows are exact and shared through Redis where there
    is one; while Redis is away each process counts for itself.
    """

    def __init__(
        self, times: int = 3, seconds: float = 60, *, name: str | None = None, key: Identify = client_address
    ) -> None:
        if times < 1 or seconds < 0.001:
            raise ValueError("a limit allows at least one call, in at least a millisecond")
        self.name = name
        self._windows = windows(times, round(seconds * 1000))
        super().__init__(Limiter(self._windows), identifier=key)

    async def __call__(self, request: Request, response: Response) -> None:
        # Asked for directly: as a dependency, a plain function costs a trip through the thread pool.
        settings = request.app.dependency_overrides.get(get_settings, get_settings)()
        if not settings.RATE_LIMITER_ENABLED:
            return
        rate = self._windows.rate
        scope = self.name or _qualified_name(request.scope["endpoint"])
        key = f"{scope}:{rate.limit}/{rate.interval}:{await self.identifier(request)}"
        # A router and one of its routes may have the same limit: a request counts once.
        counted = request.scope.setdefault("kit.counted_limits", set())
        if key in counted:
            return
        counted.add(key)
        decision = await _stores.decide(self._windows, key, settings.REDIS_KEY_PREFIX)
        if not decision.allowed:
            raise RateLimitedError(retry_after=max(1, math.ceil((decision.retry_after_ms or rate.interval) / 1000)))


class Stores:
    """Redis while it answers, this process while it does not.

    What Redis admits is counted here too, so that a Redis that goes away, or is only slow for some of the
    calls, does not hand out the limit a second time.
    """

    def __init__(self) -> None:
        self._away = False
        self._ask_again = 0.0

    async def decide(self, limit: Windows, key: str, prefix: str) -> Decision:
        """Whether one more call fits."""
        item, redis = limit.wrap_item(key), runtime().redis
        if redis is not None and time.monotonic() >= self._ask_again:
            try:
                decision = await _admit(limit.shared(item, redis, f"{prefix}limit:"), item)
            except RedisError as exc:
                self._ask_again = time.monotonic() + REDIS_PAUSE
                self._note(exc)
            else:
                self._note(None)
                if not decision.allowed:
                    return decision
        return await _admit(limit.get(item), item)

    def _note(self, failure: RedisError | None) -> None:
        """Log a change, and only a change."""
        if failure and not self._away:
            logger.warning("limits are counted per process: Redis does not answer", error=str(failure))
        elif self._away and not failure:
            logger.info("limits are shared through Redis again")
        self._away = failure is not None


_stores = Stores()


async def _admit(bucket: Any, item: RateItem) -> Decision:
    decision = bucket.put_decision(item)
    result: Decision = await decision if isawaitable(decision) else decision
    return result


def _qualified_name(endpoint: Any) -> str:
    return f"{endpoint.__module__}.{getattr(endpoint, '__qualname__', type(endpoint).__qualname__)}"
