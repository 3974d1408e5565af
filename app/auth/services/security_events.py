"""Security events, with where they came from."""

from app.auth.events import Origin, SecurityEvent
from app.core.services.events import BaseEvent, EventsServiceInterface


class SecurityEvents(EventsServiceInterface):
    """Adds the origin of the request to every security event dispatched in it."""

    def __init__(self, *, events: EventsServiceInterface, origin: Origin) -> None:
        self.events = events
        self.origin = origin

    def dispatch(self, event: BaseEvent) -> None:
        if isinstance(event, SecurityEvent):
            event = event.model_copy(update={"origin": self.origin})
        self.events.dispatch(event)
