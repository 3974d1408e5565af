"""What the module of these tests hears."""

from app.auth import UserCreated
from app.core.deps import listener
from app.core.services.events import ListenedEvent
from tests.faults.journal import note


@listener(UserCreated)
async def hear(event: ListenedEvent[UserCreated]) -> None:
    """Note the user."""
    note("heard", event.data.user_id)


@listener(UserCreated)
async def overhear(event: ListenedEvent[UserCreated]) -> None:
    """Note the user too."""
    note("overheard", event.data.user_id)
