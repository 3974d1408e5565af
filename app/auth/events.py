"""What this module tells others. No event holds a secret, an address or a name: ids lead to those who may know."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from app.core.services.events import BaseEvent


class Origin(BaseModel):
    """Where a request came from; its ids lead to its lines in the log."""

    model_config = ConfigDict(frozen=True)

    address: str | None = None
    user_agent: str | None = None
    request_id: str | None = None
    conversation_id: str | None = None


class SecurityEvent(BaseEvent):
    """Base of what matters for the safety of accounts.

    `user_id` is whose account it is, None where there is none; `actor_id` who did it, None where nobody was proven.
    """

    user_id: int | None
    actor_id: int | None = None
    origin: Origin = Origin()


class AccountEvent(SecurityEvent):
    """Base of what happened to an account that exists, or did."""

    user_id: int


class UserCreated(AccountEvent):
    """An account exists: registered, or made by an administrator."""


class UserUpdated(AccountEvent):
    """An account was changed, by its owner or by an administrator: `fields` are other than before."""

    fields: tuple[str, ...]


class UserStatusChanged(AccountEvent):
    """An account was disabled or enabled by an administrator."""

    status_id: int


class SuperuserChanged(AccountEvent):
    """An account was made a superuser, or is none any more."""

    is_superuser: bool


class UserDeleted(AccountEvent):
    """An account was deleted, by its owner or by an administrator."""


class EmailAddressChanged(AccountEvent):
    """An account has another address."""


class EmailAddressVerified(AccountEvent):
    """The link mailed to an account's address was used."""


class PasswordChanged(AccountEvent):
    """A new password was set by who knew the old one; the other sessions ended."""


class PasswordConfirmationFailed(AccountEvent):
    """A change that asks for the current password was refused: it was wrong."""


class PasswordResetRequested(SecurityEvent):
    """A link for a new password was asked for. Without `user_id` for an address that has no account."""


class PasswordResetCompleted(AccountEvent):
    """A new password was set with a mailed link; every session ended."""


class LoginSucceeded(AccountEvent):
    """A password was exchanged for a session."""

    session_id: int


class LoginFailure(StrEnum):
    """Why a login was refused, which the caller is not told."""

    UNKNOWN_ACCOUNT = "unknown_account"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105  the name of a reason
    ACCOUNT_NOT_ACTIVE = "account_not_active"


class LoginFailed(SecurityEvent):
    """A login was refused. What was typed is not kept: it may be a password in the wrong field."""

    reason: LoginFailure


class LoggedOut(AccountEvent):
    """A session was ended by its bearer."""

    session_id: int


class LoggedOutEverywhere(AccountEvent):
    """Every session of an account was ended by its owner."""


class SessionRevoked(AccountEvent):
    """A session was ended by its owner from another one."""

    session_id: int


class RefreshTokenReused(AccountEvent):
    """A refresh token came twice, so one of the two was stolen; the session ended."""

    session_id: int
