"""What this module does about events."""

from app.auth.events import UserCreated
from app.auth.tasks import AccountMails
from app.core.deps import DBSession, listener
from app.core.services.events import ListenedEvent


@listener(UserCreated)
async def send_welcome(event: ListenedEvent[UserCreated], db: DBSession, mails: AccountMails) -> None:
    """Greet the new user by mail."""
    await mails.send_welcome(event.data.user_id, db=db)
