"""Security events, with where they came from."""

from dataclasses import dataclass

from app.auth.events import Origin, SecurityEvent
from app.core.services.events import BaseEvent, EventsServiceInterface


@dataclass(kw_only=True)
class SecurityEvents(EventsServiceInterface):
    """Adds the origin of the request to every security event dispatched in it."""

    events: EventsServiceInterface
    origin: Origin

    def dispatch(self, event: BaseEvent) -> None:
        if isinstance(event, SecurityEvent):
            event = event.model_copy(update={"origin": self.origin})
        self.events.dispatch(event)
