"""What this module does about events."""

from app.auth.events import UserCreated
from app.auth.tasks import account_mails
from app.core.db import session_scope
from app.core.deps import listener
from app.core.services.events import ListenedEvent


@listener(UserCreated)
async def send_welcome(event: ListenedEvent[UserCreated]) -> None:
    """Greet the new user by mail."""
    async with session_scope() as db:
        await (await account_mails()).send_welcome(event.data.user_id, db=db)
