"""Limits on how often one client may call."""

from collections.abc import Awaitable, Callable, Iterator
from itertools import takewhile
from typing import Any, TypeAlias

from fastapi.requests import HTTPConnection
from fastapi_limiter.depends import RateLimiter
from pyrate_limiter import Limiter
from starlette.types import Scope

from app.core.api.limit_fields import CountedLimit, counted_limits, whole_seconds
from app.core.api.limiter_stores import Stores
from app.core.api.limiter_windows import Verdict, windows
from app.core.api.routes import ListedRoute, route_of
from app.core.configs import get_settings
from app.core.deps import configured
from app.core.exceptions import RateLimitedError
from app.core.identity import client_address, client_identity, is_identifying

Identify: TypeAlias = Callable[[Any], Awaitable[str]]
"""Tells who a Request, a WebSocket, or either (an HTTPConnection) is from."""

_stores = Stores()


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
        self._windows = windows(times, round(seconds * 1000))
        super().__init__(Limiter(self._windows), identifier=key)

    async def __call__(self, connection: HTTPConnection) -> None:  # type: ignore[override]  # a websocket is limited too
        settings = configured(connection, get_settings)
        if not settings.RATE_LIMITER_ENABLED:
            return
        key = await self._key(connection)
        # A router and one of its routes may have the same limit: a request counts once.
        counted = counted_limits(connection.scope)
        if key in counted:
            return
        counted[key] = None
        verdict = await _stores.decide(self._windows, key)
        counted[key] = self._counted(connection, verdict)
        _refuse_beyond(verdict)

    def __str__(self) -> str:
        rate = self._windows.rate
        return f"{rate.limit} in {rate.interval / 1000:g} s"

    async def count(self, connection: HTTPConnection) -> None:
        """Count one more call on an open connection: a message of a websocket."""
        settings = configured(connection, get_settings)
        if settings.RATE_LIMITER_ENABLED:
            key = await self._key(connection, "messages")
            _refuse_beyond(await _stores.decide(self._windows, key))

    async def _key(self, connection: HTTPConnection, *kind: str) -> str:
        rate = self._windows.rate
        scope = self.name or _qualified_name(connection.scope["endpoint"])
        identity = await self.identifier(connection)
        return ":".join((scope, *kind, f"{rate.limit}/{rate.interval}", identity))

    def _counted(self, connection: HTTPConnection, verdict: Verdict) -> CountedLimit:
        rate = self._windows.rate
        label = self.name or _name(connection.scope["endpoint"])
        printable = "".join(letter for letter in label if letter.isascii() and (letter.isalnum() or letter in "_.:/-"))
        return CountedLimit(printable or "limit", rate.limit, whole_seconds(rate.interval), verdict)


def limits_by_address(scope: Scope) -> Iterator[ConfigurableRateLimiter]:
    """The limits of the route a request took that need no more than its address."""
    route = route_of(scope)
    for limit in early_limits(route) if route else ():
        if limit.identifier in (client_identity, client_address) and limit not in scope["app"].dependency_overrides:
            yield limit


def early_limits(route: ListedRoute) -> Iterator[ConfigurableRateLimiter]:
    """The limits before the first dependency that identifies the caller."""
    for call in takewhile(lambda call: not is_identifying(call), route.calls):
        if isinstance(call, ConfigurableRateLimiter):
            yield call


def _refuse_beyond(verdict: Verdict) -> None:
    if not verdict.allowed:
        raise RateLimitedError(retry_after=whole_seconds(verdict.reset_ms))


def _name(endpoint: Any) -> str:
    return str(getattr(endpoint, "__name__", type(endpoint).__name__))


def _qualified_name(endpoint: Any) -> str:
    return f"{endpoint.__module__}.{getattr(endpoint, '__qualname__', type(endpoint).__qualname__)}"
