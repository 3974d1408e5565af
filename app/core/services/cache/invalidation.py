"""Forgetting by events."""

import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from app.core.exceptions import UnavailableError
from app.core.services.cache.interface import current_cache
from app.core.services.cache.names import namespace_of
from app.core.services.events.interface import BaseEvent, ListenedEvent
from app.core.services.events.registry import Handler, listener

E = TypeVar("E", bound=BaseEvent)

Names = Iterable[str] | Callable[[E], Iterable[str]]
"""Names, or what makes them of the event."""


def invalidates(
    event: type[E], *, tags: Names[E] = (), keys: Names[E] = (), patterns: Names[E] = (), durable: bool = True
) -> Handler:
    """Have `event` forget what the calling module's cache holds under the names, once it is committed.

        invalidates(UserUpdated, tags=lambda event: [f"user:{event.user_id}"])

    Belongs into `listeners.py`, once an event. Durable: a job, tried again until the cache could be reached.
    """
    caller = sys._getframe(1).f_globals["__name__"]

    async def forget(heard: ListenedEvent[Any]) -> None:
        cache = current_cache().namespace(namespace_of(caller))
        done = [
            await cache.invalidate(*_names(tags, heard.data)),
            await cache.delete(*_names(keys, heard.data)),
            *[await cache.delete_pattern(pattern) for pattern in _names(patterns, heard.data)],
        ]
        if not all(done):
            raise UnavailableError("The cache cannot be reached: what the event made untrue is still in it.")

    forget.__doc__ = "Forget what the cache holds that is no longer true."
    forget.__module__ = caller
    forget.__qualname__ = f"invalidates.{event.__name__}"  # a listener's name, which stored jobs know it by
    return listener(event, durable=durable)(forget)


def _names(given: Names[E], event: E) -> Iterable[str]:
    return given(event) if callable(given) else given
