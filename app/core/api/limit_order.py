"""Which limits of a route count before its caller is known: those count addresses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from starlette.routing import BaseRoute
from starlette.types import Scope

from app.core.api.identity import client_address, client_identity, is_identifying
from app.core.api.limiter import ConfigurableRateLimiter
from app.core.api.routes import ListedRoute, listed_routes, route_of
from app.core.services.log import logger


@dataclass(frozen=True)
class MisplacedLimit:
    """A limit that is meant for callers and comes before the dependency that tells who calls."""

    route: ListedRoute
    limit: ConfigurableRateLimiter

    @property
    def fix(self) -> str:
        """What to do about it."""
        return "put the dependency that identifies the caller before it, or give it key=client_address"

    def __str__(self) -> str:
        route = f"{self.route.path} ({self.route.name})"
        return f"{route}: the limit of {self.limit} counts addresses instead of callers; {self.fix}"


def misplaced_limits(routes: Sequence[BaseRoute]) -> list[MisplacedLimit]:
    """The limits of routes that know their caller only afterwards."""
    return [
        MisplacedLimit(route, limit)
        for route in listed_routes(routes)
        if any(map(is_identifying, route.calls))
        for limit in _early(route)
        if limit.identifier is client_identity
    ]


def warn_about_misplaced_limits(routes: Sequence[BaseRoute]) -> None:
    """One line in the log for each."""
    for misplaced in misplaced_limits(routes):
        logger.warning(f"misplaced limit: {misplaced}")


def limits_by_address(scope: Scope) -> Iterator[ConfigurableRateLimiter]:
    """The limits of the route a request took that need no more than its address."""
    route = route_of(scope)
    for limit in _early(route) if route else ():
        if limit.identifier in (client_identity, client_address) and limit not in scope["app"].dependency_overrides:
            yield limit


def _early(route: ListedRoute) -> Iterator[ConfigurableRateLimiter]:
    """The limits before the first dependency that identifies the caller."""
    for call in takewhile(lambda call: not is_identifying(call), route.calls):
        if isinstance(call, ConfigurableRateLimiter):
            yield call
