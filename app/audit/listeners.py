"""What this module hears. Each event is kept as it is; only whether it is a failure is decided here."""

from app.audit.deps import audit_service
from app.audit.models import Outcome
from app.auth import (
    EmailAddressChanged,
    EmailAddressVerified,
    LoggedOut,
    LoggedOutEverywhere,
    LoginFailed,
    LoginSucceeded,
    PasswordChanged,
    PasswordConfirmationFailed,
    PasswordResetCompleted,
    PasswordResetRequested,
    RefreshTokenReused,
    SessionRevoked,
    SuperuserChanged,
    UserCreated,
    UserDeleted,
    UserStatusChanged,
    UserUpdated,
    get_gateway,
)
from app.core.db import session_scope
from app.core.deps import listener
from app.core.services.events import ListenedEvent


@listener(UserCreated)
async def record_created_user(event: ListenedEvent[UserCreated]) -> None:
    """Keep that an account was made."""
    await _record(event)


@listener(UserUpdated)
async def record_updated_user(event: ListenedEvent[UserUpdated]) -> None:
    """Keep which fields of an account were changed."""
    await _record(event)


@listener(UserStatusChanged)
async def record_changed_status(event: ListenedEvent[UserStatusChanged]) -> None:
    """Keep that an account was disabled or enabled."""
    await _record(event)


@listener(SuperuserChanged)
async def record_changed_superuser(event: ListenedEvent[SuperuserChanged]) -> None:
    """Keep who was made a superuser, or unmade."""
    await _record(event)


@listener(UserDeleted)
async def record_deleted_user(event: ListenedEvent[UserDeleted]) -> None:
    """Keep that an account was deleted."""
    await _record(event)


@listener(EmailAddressChanged)
async def record_changed_address(event: ListenedEvent[EmailAddressChanged]) -> None:
    """Keep that an account has another address."""
    await _record(event)


@listener(EmailAddressVerified)
async def record_verified_address(event: ListenedEvent[EmailAddressVerified]) -> None:
    """Keep that an address was verified."""
    await _record(event)


@listener(PasswordChanged)
async def record_changed_password(event: ListenedEvent[PasswordChanged]) -> None:
    """Keep that a password was changed."""
    await _record(event)


@listener(PasswordConfirmationFailed)
async def record_failed_confirmation(event: ListenedEvent[PasswordConfirmationFailed]) -> None:
    """Keep that a change was refused because its password was wrong."""
    await _record(event, Outcome.FAILURE)


@listener(PasswordResetRequested)
async def record_requested_reset(event: ListenedEvent[PasswordResetRequested]) -> None:
    """Keep that a link for a new password was asked for."""
    await _record(event)


@listener(PasswordResetCompleted)
async def record_completed_reset(event: ListenedEvent[PasswordResetCompleted]) -> None:
    """Keep that a password was set with a mailed link."""
    await _record(event)


@listener(LoginSucceeded)
async def record_login(event: ListenedEvent[LoginSucceeded]) -> None:
    """Keep a login."""
    await _record(event)


@listener(LoginFailed)
async def record_failed_login(event: ListenedEvent[LoginFailed]) -> None:
    """Keep a refused login."""
    await _record(event, Outcome.FAILURE)


@listener(LoggedOut)
async def record_logout(event: ListenedEvent[LoggedOut]) -> None:
    """Keep a logout."""
    await _record(event)


@listener(LoggedOutEverywhere)
async def record_logout_everywhere(event: ListenedEvent[LoggedOutEverywhere]) -> None:
    """Keep that every session of an account was ended."""
    await _record(event)


@listener(SessionRevoked)
async def record_revoked_session(event: ListenedEvent[SessionRevoked]) -> None:
    """Keep that a session was ended from another one."""
    await _record(event)


@listener(RefreshTokenReused)
async def record_reused_token(event: ListenedEvent[RefreshTokenReused]) -> None:
    """Keep that a refresh token came twice."""
    await _record(event, Outcome.FAILURE)


async def _record(event: ListenedEvent, outcome: Outcome = Outcome.SUCCESS) -> None:
    service = await audit_service(await get_gateway())
    async with session_scope() as db:
        await service.record(event, db=db, outcome=outcome)
