"""The event contract: events, listeners, and the service that dispatches."""

import inspect
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic
from uuid import UUID, uuid4

from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict
from pydantic.alias_generators import to_snake
from typing_extensions import TypeVar

from app.core.db.base import utcnow
from app.core.exceptions import ConfigError
from app.core.process import ProcessService, Slot
from app.core.services.queue.injection import call_with_dependencies, dependencies_of, path_of
from app.core.services.queue.interface import BaseTask
from app.core.services.queue.registry import check_queue
from app.core.services.secret_types import holds_secret


class BaseEvent(PydanticModel):
    """A fact in the past tense. `UserCreated.__event_name__` is `user_created` unless the class says otherwise.

    It is stored as JSON for every listener, so no field may hold a secret: ConfigError where the class is defined.
    """

    model_config = ConfigDict(frozen=True)

    __event_name__: ClassVar[str]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "__event_name__" not in cls.__dict__:
            cls.__event_name__ = to_snake(cls.__name__)

    @classmethod
    def __pydantic_on_complete__(cls) -> None:
        for name, declared in cls.model_fields.items():
            if holds_secret(declared.annotation):
                raise ConfigError(f"{path_of(cls)}.{name} is a secret, which no row may hold")

    def _get_principal(self) -> str | None:
        """Owner of the personal data, as `user:7`, so that `erase_jobs` finds its jobs; None where there is none."""
        return None


class EventDataError(ValueError):
    """An event holds what JSON cannot: a fault of the code that dispatches it."""


class UnknownListener(LookupError):
    """A job names a listener, or an event class, this process does not have."""


E = TypeVar("E", bound=BaseEvent, default=Any)

Handler = Callable[..., Awaitable[None]]
"""Takes the ListenedEvent, and the dependencies it asks for as a route does."""
H = TypeVar("H", bound=Handler)


@dataclass(frozen=True)
class ListenedEvent(Generic[E]):
    """An event as a listener receives it; a test of a listener makes one by hand: `ListenedEvent(name, data)`.

    `id` is the same for every delivery of one event: an idempotent listener remembers it.
    `attempt` starts at 1.
    """

    name: str
    data: E
    id: UUID = field(default_factory=uuid4)
    attempt: int = 1
    occurred_at: datetime = field(default_factory=utcnow)


@dataclass(frozen=True)
class Listener:
    """A function that hears events of one class and of those that extend it.

    Its name is `module:qualname`, so it survives a restart.
    """

    name: str
    event: type[BaseEvent]
    handler: Handler
    durable: bool
    queue: str = BaseTask.queue

    def kind(self, path: str | None) -> type[BaseEvent]:
        """Return the class of a stored event: this listener's own, or the one called `path` that extends it."""
        for kind in _family(self.event):
            if path in (None, path_of(kind)):
                return kind
        raise UnknownListener(f"no event is called {path!r}: was it renamed or removed?")

    async def hear(self, event: ListenedEvent[Any]) -> None:
        """Call the function with `event` and the dependencies it asks for."""
        await call_with_dependencies(self.handler, event)


class ListenerRegistry:
    """Listeners by name."""

    def __init__(self) -> None:
        self._listeners: dict[str, Listener] = {}

    def add(self, event: type[BaseEvent], handler: Handler, *, durable: bool, queue: str = BaseTask.queue) -> None:
        """Register `handler`; ConfigError if it cannot listen or a name is taken."""
        if not (isinstance(event, type) and issubclass(event, BaseEvent) and event is not BaseEvent):
            raise ConfigError(f"@listener takes a subclass of BaseEvent, not {event!r}")
        for other in {found.event for found in self} - {event}:
            if other.__event_name__ == event.__event_name__:
                both = f"{path_of(other)} and {path_of(event)}"
                raise ConfigError(f"{both} are both called {event.__event_name__!r}: give one another __event_name__")
        if not inspect.iscoroutinefunction(handler):
            raise ConfigError(f"{handler!r} cannot listen: it is no `async def`")
        name = f"{handler.__module__}:{handler.__qualname__}"
        _check_parameters(handler, name)
        check_queue(name, queue)
        if name in self._listeners:
            raise ConfigError(f"two listeners are called {name}")
        self._listeners[name] = Listener(name, event, handler, durable, queue)

    def of(self, event: type[BaseEvent]) -> list[Listener]:
        """Return the listeners of `event` and of the classes it extends."""
        return [found for found in self if issubclass(event, found.event)]

    def events(self, name: str) -> set[type[BaseEvent]]:
        """Return the event classes of this name that somebody hears."""
        return {kind for found in self for kind in _family(found.event) if kind.__event_name__ == name}

    def get(self, name: str) -> Listener:
        """Return the listener called `name`, or raise UnknownListener."""
        if name not in self._listeners:
            raise UnknownListener(f"no listener is called {name!r}: was it renamed or removed?")
        return self._listeners[name]

    def __iter__(self) -> Iterator[Listener]:
        return iter(list(self._listeners.values()))


listeners = ListenerRegistry()


def listener(event: type[BaseEvent], *, durable: bool = True, queue: str = BaseTask.queue) -> Callable[[H], H]:
    """Have the decorated coroutine function hear `event` after the transaction that dispatched it has committed.

    Events of a class that extends `event` are heard too, as what they are.

    It takes the ListenedEvent and, as a route does, any dependency of `app.core.deps`: `db: DBSession` is a unit of
    work that commits when the listener has ended well. Durable: a job of its own in `queue`, at least once, retried on
    its own; one that sends mails belongs in `mail`, where a mail server that hangs holds up mails alone.
    `durable=False`: in this process, at most once.
    """

    def register(handler: H) -> H:
        listeners.add(event, handler, durable=durable, queue=queue)
        return handler

    return register


class EventsServiceInterface(ProcessService):
    """Tells listeners what happened."""

    @abstractmethod
    def dispatch(self, event: BaseEvent) -> None:
        """Store `event` for every listener with the current unit of work: it is delivered if and only if that commits.

        Outside a unit of work the event gets a transaction of its own: before the answer to the request leaves or
        the job ends, which fails where that fails; elsewhere in the background, tried until the process ends. An
        event that JSON cannot hold raises EventDataError.
        """


current_events = Slot[EventsServiceInterface]()
"""The event service of this process."""


def _family(event: type[BaseEvent]) -> Iterator[type[BaseEvent]]:
    yield event
    for kind in event.__subclasses__():
        yield from _family(kind)


def _check_parameters(handler: Handler, name: str) -> None:
    try:
        injected = dependencies_of(handler)
    except NameError:  # an annotation names what is defined later
        return
    given = [each for each in inspect.signature(handler).parameters.values() if each.name not in injected]
    needed = [each for each in given if each.default is each.empty]
    if len(needed) != 1 or needed[0].kind is inspect.Parameter.KEYWORD_ONLY:
        raise ConfigError(f"{name} cannot listen: beside its dependencies it must take one parameter, the event")
