"""Listeners of this module."""

from app.api_keys.events import ApiKeyRevoked
from app.api_keys.repositories import ApiKeyRepository
from app.auth import PasswordResetCompleted
from app.core.deps import DBSession, EventsService, listener
from app.core.services.events import ListenedEvent


@listener(PasswordResetCompleted)
async def revoke_keys(event: ListenedEvent[PasswordResetCompleted], db: DBSession, events: EventsService) -> None:
    """Revoke the account's keys: whoever had its password may have made one."""
    for api_key_id in await ApiKeyRepository().revoke_all(db=db, owner_id=event.data.user_id):
        events.dispatch(ApiKeyRevoked(user_id=event.data.user_id, api_key_id=api_key_id))
