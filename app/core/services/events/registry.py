"""Which listeners there are. A listener's identity is `module:qualname`, so it survives a restart."""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from app.core.exceptions import ConfigError
from app.core.services.events.interface import BaseEvent, ListenedEvent
from app.core.services.queue.injection import call_with_dependencies, dependencies_of

Handler = Callable[..., Awaitable[None]]
"""Takes the ListenedEvent, and the dependencies it asks for as a route does."""
H = TypeVar("H", bound=Handler)


class UnknownListener(LookupError):
    """A job names a listener, or an event class, this process does not have."""


@dataclass(frozen=True)
class Listener:
    """A function that hears events of one class and of those that extend it."""

    name: str
    event: type[BaseEvent]
    handler: Handler
    durable: bool

    def kind(self, path: str | None) -> type[BaseEvent]:
        """The class of a stored event: its own, or the one called `path` that extends it; else UnknownListener."""
        found = next((each for each in family(self.event) if path in (None, path_of(each))), None)
        if found is None:
            raise UnknownListener(f"no event is called {path!r}: was it renamed or removed?")
        return found

    async def hear(self, event: ListenedEvent[Any]) -> None:
        """Call the function with `event` and what else it asks for."""
        await call_with_dependencies(self.handler, event)


class ListenerRegistry:
    """Listeners by name."""

    def __init__(self) -> None:
        self._listeners: dict[str, Listener] = {}

    def add(self, event: type[BaseEvent], handler: Handler, *, durable: bool) -> None:
        """Register `handler`; ConfigError where it cannot listen or its name is taken."""
        self._check_event(event)
        if not inspect.iscoroutinefunction(handler):
            raise ConfigError(f"{handler!r} cannot listen: it is no `async def`")
        name = f"{handler.__module__}:{handler.__qualname__}"
        _check_parameters(handler, name)
        if name in self._listeners:
            raise ConfigError(f"two listeners are called {name}")
        self._listeners[name] = Listener(name, event, handler, durable)

    def of(self, event: type[BaseEvent]) -> list[Listener]:
        """The listeners of `event` and of the classes it extends."""
        return [found for found in self._listeners.values() if issubclass(event, found.event)]

    def events(self, name: str) -> set[type[BaseEvent]]:
        """The event classes of this name that somebody hears."""
        heard = {kind for found in self._listeners.values() for kind in family(found.event)}
        return {kind for kind in heard if kind.__event_name__ == name}

    def get(self, name: str) -> Listener:
        """The listener called `name`, or UnknownListener."""
        try:
            return self._listeners[name]
        except KeyError:
            raise UnknownListener(f"no listener is called {name!r}: was it renamed or removed?") from None

    def __iter__(self) -> Iterator[Listener]:
        return iter(list(self._listeners.values()))

    def _check_event(self, event: type[BaseEvent]) -> None:
        if not (isinstance(event, type) and issubclass(event, BaseEvent) and event is not BaseEvent):
            raise ConfigError(f"@listener takes a subclass of BaseEvent, not {event!r}")
        for other in {found.event for found in self._listeners.values()} - {event}:
            if other.__event_name__ == event.__event_name__:
                raise ConfigError(
                    f"{path_of(other)} and {path_of(event)} are both called {event.__event_name__!r}: "
                    "give one another __event_name__"
                )


listeners = ListenerRegistry()


def listener(event: type[BaseEvent], *, durable: bool = True) -> Callable[[H], H]:
    """Have the decorated coroutine function hear `event` after the transaction that dispatched it has committed.

    Events of a class that extends `event` are heard too, as what they are.

    It takes the ListenedEvent and, as a route does, any dependency of `app.core.deps`: `db: DBSession` is a unit of
    work that commits when the listener has ended well. Durable: a job of its own, at least once, retried on its own.
    `durable=False`: in this process, at most once.
    """

    def register(handler: H) -> H:
        listeners.add(event, handler, durable=durable)
        return handler

    return register


def family(event: type[BaseEvent]) -> Iterator[type[BaseEvent]]:
    """`event` and every class that extends it."""
    yield event
    for kind in event.__subclasses__():
        yield from family(kind)


def _check_parameters(handler: Handler, name: str) -> None:
    try:
        injected = dependencies_of(handler)
    except NameError:  # an annotation names what is defined later
        return
    needed = [
        parameter
        for parameter in inspect.signature(handler).parameters.values()
        if parameter.default is parameter.empty and parameter.name not in injected
    ]
    if len(needed) != 1 or needed[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise ConfigError(f"{name} cannot listen: beside its dependencies it must take one parameter, the event")


def path_of(event: type) -> str:
    """The class by module and name, as rows and messages call it."""
    return f"{event.__module__}.{event.__qualname__}"
