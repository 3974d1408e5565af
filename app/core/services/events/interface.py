"""The event contract."""

from abc import ABC, abstractmethod
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
from app.core.process import Slot
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

    def _get_principal(self) -> str | None:
        """Owner of the personal data, as `user:7`, so that `erase_jobs` finds its jobs; None where there is none."""
        return None

    @classmethod
    def __pydantic_on_complete__(cls) -> None:
        for name, declared in cls.model_fields.items():
            if holds_secret(declared.annotation):
                raise ConfigError(f"{cls.__module__}.{cls.__qualname__}.{name} is a secret, which no row may hold")


class EventDataError(ValueError):
    """An event holds what JSON cannot: a fault of the code that dispatches it."""


E = TypeVar("E", bound=BaseEvent, default=Any)


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


class EventsServiceInterface(ABC):
    """Tells listeners what happened."""

    @abstractmethod
    def dispatch(self, event: BaseEvent) -> None:
        """Store `event` for every listener with the current unit of work: it is delivered if and only if that commits.

        Outside a unit of work the event gets a transaction of its own: before the answer to the request leaves or
        the job ends, which fails where that fails; elsewhere in the background, tried until the process ends. An
        event that JSON cannot hold raises EventDataError.
        """

    async def close(self) -> None:  # noqa: B027  most hold nothing
        """Release what the service holds. Called once, when the process ends."""


current_events = Slot[EventsServiceInterface]()
"""The event service of this process."""
