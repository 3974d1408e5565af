"""Routes that no request can reach, as one that was registered earlier takes them all."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Literal

from starlette.routing import BaseRoute

from app.core.api.routes import ANY_METHOD, WEBSOCKET, ListedRoute, listed_routes, mounted_routes

_STRANGE = "\N{SNOWMAN}"
"""What no path spells out: only a parameter takes it."""

# Two samples of each kind: a path that happens to spell one out does not match the other, so it shadows nothing.
_VALUES = (
    "",
    _STRANGE,
    f"{_STRANGE}/{_STRANGE}",
    "17",
    "40",
    "1.5",
    "2.25",
    "6f1c0b52-93a5-4d2e-8c5b-1f0e7ad4c913",
    "0d3b6a1e8f2c4b7d9ae1c5f70b2d4c68",
)


@dataclass(frozen=True)
class Collision:
    """`hidden` is never asked with `methods`: `first` takes these requests."""

    kind: Literal["duplicate", "shadowed"]
    methods: tuple[str, ...]
    hidden: ListedRoute
    first: ListedRoute

    @property
    def fix(self) -> str:
        """What to do about it."""
        if self.kind == "duplicate":
            same = self.hidden.endpoint is self.first.endpoint
            return "include it once" if same else "remove one of them, or give it another path or method"
        if self.first.is_mount:
            return f"include it before the mount of {self.first.path}, or give it another path"
        return "register it before the other, or narrow the other with a converter such as {id:int}"

    def __str__(self) -> str:
        methods = "/".join(self.methods)
        return (
            f"{methods} {self.hidden.path} ({self.hidden.name}) is never reached: "
            f"{self.first.path} ({self.first.name}) comes first and takes its requests; {self.fix}"
        )


def route_collisions(routes: Sequence[BaseRoute]) -> list[Collision]:
    """Every route that is hidden by an earlier one, for all or some of its methods; those of mounted applications too.

    What is hidden only in part, as `/{name}/list` behind `/users/{id}`, can still be reached and is not listed.
    """
    return list(_collisions(list(listed_routes(routes))))


def _collisions(listed: Sequence[ListedRoute]) -> Iterator[Collision]:
    for position, route in enumerate(listed):
        yield from _hidden(route, listed[:position])
        if route.is_mount:
            yield from _collisions(list(mounted_routes(route)))


def _hidden(route: ListedRoute, earlier: Iterable[ListedRoute]) -> Iterator[Collision]:
    left, examples = set(route.methods), _examples(route)
    for first in earlier:
        taken = left & first.methods | (left - {WEBSOCKET} if ANY_METHOD in first.methods else set())
        if taken and _covers(first, route, examples):
            left = left - taken
            kind: Literal["duplicate", "shadowed"] = "duplicate" if _shape(first) == _shape(route) else "shadowed"
            yield Collision(kind, tuple(sorted(taken)), route, first)


def _covers(first: ListedRoute, route: ListedRoute, examples: Sequence[str]) -> bool:
    return _shape(first) == _shape(route) or all(first.pattern.match(example) for example in examples)


def _examples(route: ListedRoute) -> list[str]:
    """Paths of the route, in which each of its parameters takes every value of its kind."""
    values = [_values_of(convertor) for convertor in route.convertors.values()]
    rounds = max(map(len, values), default=1)
    columns = [islice(cycle(column), rounds) for column in values]
    rows = list(zip(*columns, strict=True)) or [()]
    return [_filled(route, row) for row in rows]


def _values_of(convertor: Any) -> list[str]:
    # A convertor of the application's own may match no sample: then only a route that takes any text covers it.
    return [value for value in _VALUES if re.fullmatch(convertor.regex, value)] or [_STRANGE]


def _filled(route: ListedRoute, values: Sequence[str]) -> str:
    path: str = route.context.path_format or ""
    for name, value in zip(route.convertors, values, strict=True):
        path = path.replace(f"{{{name}}}", value)
    return path


def _shape(route: ListedRoute) -> str:
    """The pattern without the names of its parameters."""
    return re.sub(r"\(\?P<\w+>", "(", route.pattern.pattern)
