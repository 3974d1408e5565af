"""Listeners of this module: what puts an attacker out of an account ends its keys too."""

from app.api_keys.events import ApiKeyRevoked
from app.api_keys.repositories import ApiKeyRepository
from app.auth import PasswordResetCompleted, UserStatus, UserStatusChanged
from app.core.deps import DBSession, EventsService, listener
from app.core.services.events import ListenedEvent


@listener(PasswordResetCompleted)
async def revoke_keys(event: ListenedEvent, db: DBSession, events: EventsService) -> None:
    """Revoke the account's keys: whoever had its password may have made one."""
    about = event.data
    for api_key_id in await ApiKeyRepository().revoke_all(db=db, owner_id=about.user_id):
        events.dispatch(ApiKeyRevoked(user_id=about.user_id, actor_id=about.actor_id, api_key_id=api_key_id))


@listener(UserStatusChanged)
async def revoke_if_disabled(event: ListenedEvent, db: DBSession, events: EventsService) -> None:
    """Revoke the keys of an account that was disabled, so that none comes back when it is enabled."""
    if event.data.status_id == UserStatus.DISABLED:
        await revoke_keys(event, db, events)
