"""`RateLimit-Policy` and `RateLimit`: what a caller may still do (draft-ietf-httpapi-ratelimit-headers-11)."""

import math
from typing import NamedTuple

from starlette.types import Scope

from app.core.api.limiter_windows import Verdict

_COUNTED = "kit.counted_limits"


class CountedLimit(NamedTuple):
    """A limit this request counts against, and what came of it."""

    label: str
    times: int
    seconds: int
    verdict: Verdict


def counted_limits(scope: Scope) -> dict[str, CountedLimit | None]:
    """What this request counts against, by key."""
    counted: dict[str, CountedLimit | None] = scope.setdefault(_COUNTED, {})
    return counted


def limit_fields(scope: Scope) -> list[tuple[bytes, bytes]]:
    """The two headers of the answer; none where nothing was counted."""
    limits = [limit for limit in scope.get(_COUNTED, {}).values() if limit]
    if not limits:
        return []
    policies, states, seen = [], [], set[str]()
    for number, limit in enumerate(limits, 1):
        # A policy is known by its name alone, and a router and a route may both limit one function.
        name = limit.label if limit.label not in seen else f"{limit.label}-{number}"
        seen.add(name)
        policies.append(f'"{name}";q={limit.times};w={limit.seconds}')
        states.append(f'"{name}";r={limit.verdict.remaining};t={whole_seconds(limit.verdict.reset_ms)}')
    return [(b"ratelimit-policy", ", ".join(policies).encode()), (b"ratelimit", ", ".join(states).encode())]


def whole_seconds(milliseconds: int) -> int:
    """Rounded up: whoever waits that long is let in."""
    return max(1, math.ceil(milliseconds / 1000))
