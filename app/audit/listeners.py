"""Store every security event of `auth`. To store those of another module, add them to `LISTENERS`."""

from collections.abc import Awaitable, Callable

from app import auth
from app.audit.deps import audit_service
from app.audit.models import Outcome
from app.core.db import session_scope
from app.core.deps import listener
from app.core.services.events import ListenedEvent

# Names of listeners are stored with their jobs, so each event keeps its own.
LISTENERS: dict[str, type[auth.SecurityEvent]] = {
    "record_created_user": auth.UserCreated,
    "record_updated_user": auth.UserUpdated,
    "record_changed_status": auth.UserStatusChanged,
    "record_changed_superuser": auth.SuperuserChanged,
    "record_granted_role": auth.RoleGranted,
    "record_revoked_role": auth.RoleRevoked,
    "record_changed_role": auth.RoleChanged,
    "record_deleted_user": auth.UserDeleted,
    "record_changed_address": auth.EmailAddressChanged,
    "record_verified_address": auth.EmailAddressVerified,
    "record_changed_password": auth.PasswordChanged,
    "record_failed_confirmation": auth.PasswordConfirmationFailed,
    "record_requested_reset": auth.PasswordResetRequested,
    "record_completed_reset": auth.PasswordResetCompleted,
    "record_login": auth.LoginSucceeded,
    "record_failed_login": auth.LoginFailed,
    "record_logout": auth.LoggedOut,
    "record_logout_everywhere": auth.LoggedOutEverywhere,
    "record_revoked_session": auth.SessionRevoked,
    "record_export": auth.PersonalDataExported,
    "record_reused_token": auth.RefreshTokenReused,
    "record_credential": auth.CredentialEvent,
    "record_refused_credential": auth.CredentialRefused,
    "record_refused_access": auth.AccessRefused,
}
FAILURES = (
    auth.PasswordConfirmationFailed,
    auth.LoginFailed,
    auth.RefreshTokenReused,
    auth.CredentialRefused,
    auth.AccessRefused,
)


async def record(event: ListenedEvent) -> None:
    """Store the event in a transaction of its own."""
    outcome = Outcome.FAILURE if isinstance(event.data, FAILURES) else Outcome.SUCCESS
    service = await audit_service(await auth.get_gateway())
    async with session_scope() as db:
        await service.record(event, db=db, outcome=outcome)


def _listener_called(name: str) -> Callable[[ListenedEvent], Awaitable[None]]:
    async def record_event(event: ListenedEvent) -> None:
        """Store the event."""
        await record(event)

    record_event.__name__ = record_event.__qualname__ = name
    return record_event


for _name, _event in LISTENERS.items():
    listener(_event)(_listener_called(_name))
