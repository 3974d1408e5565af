"""Which listeners there are. A listener's identity is `module:qualname`, so it survives a restart."""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from app.core.exceptions import ConfigError
from app.core.services.events.interface import BaseEvent, ListenedEvent

Handler = Callable[[ListenedEvent[Any]], Awaitable[None]]
H = TypeVar("H", bound=Handler)


class UnknownListener(LookupError):
    """A job names a listener this process does not have."""


@dataclass(frozen=True)
class Listener:
    """A function that hears one kind of event."""

    name: str
    event: type[BaseEvent]
    handler: Handler
    durable: bool


class ListenerRegistry:
    """Listeners by name."""

    def __init__(self) -> None:
        self._listeners: dict[str, Listener] = {}

    def add(self, event: type[BaseEvent], handler: Handler, *, durable: bool) -> None:
        """Register `handler`; ConfigError where it cannot listen or its name is taken."""
        if not (isinstance(event, type) and issubclass(event, BaseEvent)):
            raise ConfigError(f"@listener takes a subclass of BaseEvent, not {event!r}")
        if not inspect.iscoroutinefunction(handler):
            raise ConfigError(f"{handler!r} cannot listen: it is no `async def`")
        name = f"{handler.__module__}:{handler.__qualname__}"
        if name in self._listeners:
            raise ConfigError(f"two listeners are called {name}")
        self._listeners[name] = Listener(name, event, handler, durable)

    def of(self, event: type[BaseEvent], *, durable: bool) -> list[Listener]:
        """Who hears `event`."""
        return [found for found in self._listeners.values() if found.event is event and found.durable is durable]

    def get(self, name: str) -> Listener:
        """The listener called `name`, or UnknownListener."""
        try:
            return self._listeners[name]
        except KeyError:
            raise UnknownListener(f"no listener is called {name!r}: was it renamed or removed?") from None

    def __iter__(self) -> Iterator[Listener]:
        return iter(list(self._listeners.values()))


listeners = ListenerRegistry()


def listener(event: type[BaseEvent], *, durable: bool = True) -> Callable[[H], H]:
    """Have the decorated coroutine function hear `event` after the transaction that dispatched it has committed.

    Durable: a job of its own, at least once, retried on its own, with no unit of work open: open a
    `session_scope()` where one is needed. `durable=False`: in this process, at most once.
    """

    def register(handler: H) -> H:
        listeners.add(event, handler, durable=durable)
        return handler

    return register
