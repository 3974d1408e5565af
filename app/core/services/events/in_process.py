"""Listeners that are not durable, carried by fastapi-events in this process."""

from fastapi_events.handlers.local import LocalHandler
from fastapi_events.typing import Event

from app.core.services.background import Background
from app.core.services.events.interface import ListenedEvent
from app.core.services.events.registry import Listener


def deliver(listener: Listener, event: ListenedEvent, background: Background) -> None:
    """Start the delivery.

    A fastapi-events handler of its own for each listener: within one handler the first that raises stops the rest.
    """

    async def receive(carried: Event) -> None:
        await listener.hear(carried[1]["event"])

    handler = LocalHandler()  # type: ignore[no-untyped-call]  # fastapi-events has no types
    handler.register(receive)  # type: ignore[no-untyped-call]
    background.spawn(handler.handle((event.name, {"event": event})), f"listener {listener.name}, not durable, failed")
