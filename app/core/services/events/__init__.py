"""Events: what happened, told to listeners once the transaction has committed."""

from app.core.services.events.interface import (
    BaseEvent,
    EventDataError,
    EventsServiceInterface,
    ListenedEvent,
    listener,
)
from app.core.services.events.service import EventsService, Listen

__all__ = [
    "BaseEvent",
    "EventDataError",
    "EventsService",
    "EventsServiceInterface",
    "Listen",
    "ListenedEvent",
    "listener",
]
