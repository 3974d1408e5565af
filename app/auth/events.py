"""Events of this module. None holds a secret; only the creation and deletion of an account name its owner."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, model_validator

from app.core.services.events import BaseEvent, EventsServiceInterface


class RequestOrigin(BaseModel):
    """Client and ids of a request; the ids lead to its lines in the log."""

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
    origin: RequestOrigin = RequestOrigin()

    def _get_principal(self) -> str | None:
        return None if self.user_id is None else f"user:{self.user_id}"


class AccountEvent(SecurityEvent):
    """Base of what happened to an account that exists, or did."""

    user_id: int


class NamedAccountEvent(AccountEvent):
    """Base of events that name the owner: `UserCreated(**user.to_dict())`, of which only the fields below are kept.

    `id` and `user_id` are the same, one of them must be given. Address and name are empty in events that the version
    before has stored.
    """

    id: int = 0
    user_id: int = 0
    email: str = ""
    username: str = ""

    @model_validator(mode="before")
    @classmethod
    def _one_id(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        given = [values[name] for name in ("id", "user_id") if name in values]
        if not given or given[0] != given[-1]:
            raise ValueError("id or user_id is needed, and both are the same")
        return {**values, "id": given[0], "user_id": given[0]}


class UserCreated(NamedAccountEvent):
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


class RoleGranted(AccountEvent):
    """An account was given a role."""

    role: str


class RoleRevoked(AccountEvent):
    """A role was taken from an account."""

    role: str


RoleChange: TypeAlias = Literal["created", "changed", "deleted"]


class RoleChanged(SecurityEvent):
    """A role was made, changed or deleted; `permissions` are what it holds, or held. It is about no account."""

    user_id: int | None = None
    role: str
    change: RoleChange
    permissions: tuple[str, ...]


class UserDeleted(NamedAccountEvent):
    """An account was deleted, by its owner or by an administrator."""


class EmailAddressChanged(AccountEvent):
    """An account has another address."""


class EmailAddressVerified(AccountEvent):
    """The link mailed to an account's address was used."""


class PasswordChanged(AccountEvent):
    """A new password was set with the old one; the other sessions ended."""


class PasswordConfirmationFailed(AccountEvent):
    """A change that asks for the current password was refused: it was wrong."""


class PasswordResetRequested(SecurityEvent):
    """A link for a new password was asked for. Without `user_id` for an address that has no account."""


class PasswordResetCompleted(AccountEvent):
    """A new password was set with a mailed link; every session ended."""


class LoginSucceeded(AccountEvent):
    """A password was exchanged for a session."""

    session_id: int


LoginFailure: TypeAlias = Literal["unknown_account", "wrong_password", "account_not_active", "invalid_scope"]
"""Reason for which a login was refused; not told to the caller."""


class LoginFailed(SecurityEvent):
    """A login was refused. What was typed is not kept: it may be a password in the wrong field."""

    reason: LoginFailure


class LoggedOut(AccountEvent):
    """A session was ended by its bearer."""

    session_id: int


class LoggedOutEverywhere(AccountEvent):
    """Every session of an account was ended by its owner, an administrator or an operator."""


class SessionRevoked(AccountEvent):
    """A session was ended from another one by its owner, or by a login because there were too many."""

    session_id: int
    reason: str = "revoked"


class PersonalDataExported(AccountEvent):
    """Everything that is kept about a user was exported by its owner."""


class RefreshTokenReused(AccountEvent):
    """A refresh token came twice, so one of the two was stolen; the session ended."""

    session_id: int


class CredentialEvent(AccountEvent):
    """Base of what happened to a credential that another module knows: its events are audited without a line there."""


class CredentialRefused(AccountEvent):
    """Base of refusals of such a credential."""


class AccessRefused(AccountEvent):
    """A policy refused its caller, for lack of a permission or role if it named one.

    Told at most once a minute for each caller and permission.
    """

    permission: str | None
    route: str | None


@dataclass(kw_only=True)
class SecurityEvents(EventsServiceInterface):
    """Adds the origin of the request to every security event dispatched in it."""

    events: EventsServiceInterface
    origin: RequestOrigin

    def dispatch(self, event: BaseEvent) -> None:
        if isinstance(event, SecurityEvent):
            event = event.model_copy(update={"origin": self.origin})
        self.events.dispatch(event)
