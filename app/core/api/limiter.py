"""Limits on how often one client may call."""

import re
from collections.abc import Awaitable, Callable, Iterator
from itertools import takewhile
from typing import Any, TypeAlias

from fastapi.requests import HTTPConnection
from fastapi_limiter.depends import RateLimiter
from pyrate_limiter import Limiter
from starlette.types import Scope

from app.core.api.routes import ListedRoute, route_of
from app.core.api.sliding_windows import SlidingWindows, Verdict, counter, whole_seconds, windows_of
from app.core.configs import get_settings
from app.core.deps import configured
from app.core.identity import client_address, client_identity, is_identifying
from app.core.metrics import refusals

Identify: TypeAlias = Callable[[Any], Awaitable[str]]
"""Identifies the client of a Request, a WebSocket, or either (an HTTPConnection)."""

_COUNTED = "kit.counted_limits"
"""Scope key: what this request was counted against, by the key of the window."""


class ConfigurableRateLimiter(RateLimiter):
    """At most `times` calls in any `seconds` for each client; the next one is a RateLimitedError.

    A dependency of a route or a router; of a websocket it limits how often one may connect:

        @router.post("/login", dependencies=[Depends(ConfigurableRateLimiter(times=5, seconds=60))])

    Without a `name` each path operation counts for itself; limits of one name and rate count together.
    `key` tells clients apart: by default the caller where a dependency before this one has verified it,
    the address otherwise. Windows are exact and shared through Redis where there is one; while Redis is
    away each process counts for itself.
    """

    def __init__(
        self, times: int = 3, seconds: float = 60, *, name: str | None = None, key: Identify = client_identity
    ) -> None:
        if times < 1 or seconds < 0.001:
            raise ValueError("a limit allows at least one call, in at least a millisecond")
        self.name = name
        self._windows = windows_of(times, round(seconds * 1000))
        super().__init__(Limiter(self._windows), identifier=key, callback=_refuse)

    async def __call__(self, connection: HTTPConnection) -> None:  # type: ignore[override]  # a websocket, too
        if not configured(connection, get_settings).RATE_LIMITER_ENABLED:
            return
        key = await self._key_of(connection)
        # A router and one of its routes may have the same limit: a request counts once.
        counted = connection.scope.setdefault(_COUNTED, {})
        if key in counted:
            return
        counted[key] = None
        verdict = await counter.count(self._windows, key)
        counted[key] = (self._label(connection), self._windows, verdict)
        if not verdict.allowed:
            refusals.inc(self._label(connection))
            await self.callback(verdict)

    def __str__(self) -> str:
        return f"{self._windows.rate.limit} in {self._windows.rate.interval / 1000:g} s"

    async def count(self, connection: HTTPConnection) -> None:
        """Count one more call on an open connection: a message of a websocket."""
        if configured(connection, get_settings).RATE_LIMITER_ENABLED:
            verdict = await counter.count(self._windows, await self._key_of(connection, "messages"))
            if not verdict.allowed:
                refusals.inc(self._label(connection))
                await self.callback(verdict)

    async def _key_of(self, connection: HTTPConnection, *kind: str) -> str:
        named = _named(connection)
        counts_for = self.name or f"{named.__module__}.{named.__qualname__}"
        rate = f"{self._windows.rate.limit}/{self._windows.rate.interval}"
        return ":".join((counts_for, *kind, rate, await self.identifier(connection)))

    def _label(self, connection: HTTPConnection) -> str:
        """Return the name with the characters that a header field may show."""
        name = self.name or _named(connection).__name__
        return re.sub(r"[^A-Za-z0-9_.:/-]", "", name) or "limit"


def early_limits(route: ListedRoute) -> Iterator[ConfigurableRateLimiter]:
    """Yield the limits that run before the first dependency that identifies the caller."""
    for call in takewhile(lambda call: not is_identifying(call), route.calls):
        if isinstance(call, ConfigurableRateLimiter):
            yield call


def limits_by_address(scope: Scope) -> Iterator[ConfigurableRateLimiter]:
    """Yield the limits of a request's route that need no more than its address."""
    route = route_of(scope)
    for limit in early_limits(route) if route else ():
        if limit.identifier in (client_identity, client_address) and limit not in scope["app"].dependency_overrides:
            yield limit


def limit_fields(scope: Scope) -> dict[str, str]:
    """Return the headers of draft-ietf-httpapi-ratelimit-headers-11, none if nothing was counted."""
    counted: list[tuple[str, SlidingWindows, Verdict]] = [one for one in scope.get(_COUNTED, {}).values() if one]
    policies, states, seen = [], [], set[str]()
    for number, (label, windows, verdict) in enumerate(counted, 1):
        # A policy is known by its name alone, and a router and a route may both limit one function.
        name = f"{label}-{number}" if label in seen else label
        seen.add(name)
        policies.append(f'"{name}";q={windows.rate.limit};w={whole_seconds(windows.rate.interval)}')
        states.append(f'"{name}";r={verdict.remaining};t={whole_seconds(verdict.retry_after_ms)}')
    if not policies:
        return {}
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


async def _refuse(verdict: Verdict) -> None:
    verdict.require()


def _named(connection: HTTPConnection) -> Any:
    """Return the endpoint, or its class if it is an object without a name."""
    endpoint = connection.scope["endpoint"]
    return endpoint if hasattr(endpoint, "__qualname__") else type(endpoint)
