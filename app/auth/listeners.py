"""Listeners of this module."""

from app.auth.events import UserCreated, UserDeleted
from app.auth.tasks import AccountMails, EraseUser
from app.core.deps import DBSession, QueueService, listener
from app.core.services.events import ListenedEvent


@listener(UserCreated, queue="mail")
async def send_welcome(event: ListenedEvent[UserCreated], db: DBSession, mails: AccountMails) -> None:
    """Greet the new user by mail."""
    await mails.send_welcome(event.data.user_id, db=db)


@listener(UserDeleted)
async def erase_jobs_of_deleted_user(event: ListenedEvent[UserDeleted], queue: QueueService) -> None:
    """Queue the erasure of the user."""  # named as stored jobs of the version before name it
    await queue.push(task=EraseUser, data={"user_id": event.data.id})
