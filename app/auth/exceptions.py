"""Errors of this module, free of HTTP. `default_detail` says what each means, where a docstring does not."""

from app.core.exceptions import (
    AuthenticationError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)


class InvalidAccessToken(AuthenticationError):
    """The bearer is no access token of ours, has expired, or its session has ended."""

    code = "invalid_token"
    default_detail = "The access token is not valid."


class InvalidGrant(AuthenticationError):
    """A login or a refresh was refused (RFC 6749 section 5.2 names the error); never says why."""

    code = "invalid_grant"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, error="invalid_grant")


class InvalidScope(InvalidInputError):
    """A login was refused for its scope (RFC 6749 section 5.2 names the error)."""

    code = "invalid_scope"
    default_detail = "The scope is malformed, or the account holds nothing of it."

    def __init__(self) -> None:
        fault = {"loc": ["body", "scope"], "msg": self.default_detail, "type": self.code}
        super().__init__(errors=[fault], error="invalid_scope")


class ActionNotAllowed(PermissionDeniedError):
    """A policy answered no."""

    code = "action_not_allowed"


class AccountNotActive(PermissionDeniedError):
    code = "account_not_active"
    default_detail = "The account is disabled or its address is not verified."


class SessionRequired(PermissionDeniedError):
    code = "session_required"
    default_detail = "Log in to do this: API keys and tokens narrowed to a scope are refused."


class PasswordChangeRequired(PermissionDeniedError):
    code = "password_change_required"
    default_detail = "The password was made for this account and must be changed first: POST /profile/password."


class ReauthenticationRequired(PermissionDeniedError):
    code = "reauthentication_required"
    default_detail = "Send current_password, or log in again: your login is more than 15 minutes old."


class RegistrationClosed(ActionNotAllowed):
    code = "registration_closed"
    default_detail = "Registration is closed."


class RoleNotFound(NotFoundError):
    code = "role_not_found"
    default_detail = "The role was not found."


class RoleInUse(ConflictError):
    code = "role_in_use"
    default_detail = "Accounts have this role: revoke it first."


class RoleProtected(ConflictError):
    code = "role_protected"
    default_detail = "The roles admin and member cannot be deleted or renamed, and admin cannot be changed."


class UserNotFound(NotFoundError):
    code = "user_not_found"
    default_detail = "The user was not found."


class SessionNotFound(NotFoundError):
    code = "session_not_found"
    default_detail = "The session was not found."


class EmailTaken(ConflictError):
    code = "email_taken"
    default_detail = "An account with this e-mail address already exists."


class UsernameTaken(ConflictError):
    code = "username_taken"
    default_detail = "An account with this user name already exists."


class LastSuperuser(ConflictError):
    code = "last_superuser"
    default_detail = "The last active administrator cannot be deleted, disabled, demoted or made unverified."


class TooManyPasswords(UnavailableError):
    """More passwords are waiting to be hashed than can be in a reasonable time; the same for every account."""

    code = "too_many_passwords"
    default_detail = "Too many passwords are being checked at the moment. Try again shortly."


class WrongPassword(InvalidInputError):
    """The confirmation of a sensitive change failed. Not a 401: the bearer is fine and must not be refreshed."""

    code = "wrong_password"
    default_detail = "The current password is wrong or missing."

    def __init__(self) -> None:
        fault = {"loc": ["body", "current_password"], "msg": self.default_detail, "type": self.code}
        super().__init__(errors=[fault])


class WeakPassword(InvalidInputError):
    """A new password breaks the policy; `kind` is the type of the fault."""

    code = "weak_password"

    def __init__(self, kind: str, message: str, *, field: str) -> None:
        super().__init__(message, errors=[{"loc": ["body", field], "msg": message, "type": kind}])


class UnknownPermission(InvalidInputError):
    """No module declares these permissions; `positions` are theirs in the list that was sent."""

    code = "unknown_permission"
    default_detail = "No module declares this permission; `kit roles permissions` and GET /permissions list them."

    def __init__(self, positions: list[int]) -> None:
        fault = {"msg": self.default_detail, "type": self.code}
        super().__init__(errors=[{"loc": ["body", "permissions", position], **fault} for position in positions])


class InvalidOneTimeToken(InvalidInputError):
    """The token of a mailed link is unknown, used, expired or made for something else."""

    code = "invalid_one_time_token"
    default_detail = "The link is not valid or has expired."

    def __init__(self) -> None:
        super().__init__(errors=[{"loc": ["body", "token"], "msg": self.default_detail, "type": self.code}])
