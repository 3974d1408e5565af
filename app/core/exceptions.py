"""Errors of the application. They know nothing of HTTP; `app.core.api.errors` maps them."""

from collections.abc import Mapping
from typing import Any, ClassVar


class AppError(Exception):
    """Base of every error a caller may see.

    `code` is a stable string for programs, `detail` a sentence for people; neither may repeat
    what the caller sent or hold a secret. `retry_after` is in whole seconds.
    """

    code: ClassVar[str] = "error"
    default_detail: ClassVar[str] = "The request could not be carried out."

    def __init__(self, detail: str | None = None, *, retry_after: int | None = None, **extra: Any) -> None:
        self.detail = detail or self.default_detail
        self.retry_after = retry_after
        self.extra: Mapping[str, Any] = extra
        super().__init__(self.detail)


class NotFoundError(AppError):
    """The resource does not exist, or its existence must not be disclosed."""

    code = "not_found"
    default_detail = "The resource was not found."


class ConflictError(AppError):
    """The change conflicts with what is stored."""

    code = "conflict"
    default_detail = "The change conflicts with what is stored."


class AuthenticationError(AppError):
    """The caller is not authenticated: credentials are missing, wrong or expired."""

    code = "not_authenticated"
    default_detail = "Valid credentials are required."


class PermissionDeniedError(AppError):
    """The caller is authenticated and not allowed to do this.

    `missing` is the permission or role that was asked for; the log names it, the answer does not.
    """

    code = "permission_denied"
    default_detail = "You are not allowed to do this."

    def __init__(self, detail: str | None = None, *, missing: str | None = None) -> None:
        super().__init__(detail)
        self.missing = missing


class InvalidInputError(AppError):
    """The input breaks a rule. `errors` holds `{loc, msg, type}` members, one per fault."""

    code = "invalid_input"
    default_detail = "The input is not valid."

    def __init__(self, detail: str | None = None, *, errors: list[dict[str, Any]] | None = None, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.errors = errors or []


class RateLimitedError(AppError):
    """Too many calls."""

    code = "rate_limited"
    default_detail = "Too many requests. Try again later."


class UnavailableError(AppError):
    """A service that this one needs does not answer."""

    code = "unavailable"
    default_detail = "The service is temporarily unavailable."


class UpstreamError(AppError):
    """A called service failed or refused the request.

    `response` is its answer, an `httpx2.Response`, or None; `status` is its status. `is_outage` means that the service
    itself seems to be down, `is_transient` that a retry may succeed.
    """

    code = "upstream_failed"
    default_detail = "A required service has failed."

    def __init__(
        self,
        detail: str | None = None,
        *,
        retry_after: int | None = None,
        response: Any = None,
        is_outage: bool = False,
        is_transient: bool = False,
    ) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.response = response
        self.status: int | None = None if response is None else response.status_code
        self.is_outage = is_outage
        self.is_transient = is_transient


class UpstreamTimeout(UpstreamError):
    """A called service did not answer in time."""

    code = "upstream_timeout"
    default_detail = "A required service did not answer in time."


class UpstreamUnavailable(UpstreamError, UnavailableError):
    """A called service accepts no requests now, or its circuit breaker is open."""

    code = "upstream_unavailable"
    default_detail = "A required service is temporarily unavailable."


class RequestRefused(InvalidInputError):
    """A request to another service was not sent: its address is not public, or a part of it is malformed."""

    code = "request_refused"
    default_detail = "The address cannot be called."


class IntegrityViolation(ConflictError):
    """The database refused a write; the driver's error is the `__cause__`.

    `constraint` is the violated constraint's name where the database tells it.
    """

    code = "integrity_violation"

    def __init__(self, detail: str | None = None, *, constraint: str | None = None) -> None:
        super().__init__(detail)
        self.constraint = constraint


class UniqueViolation(IntegrityViolation):
    """Another row already has this value."""

    code = "already_exists"
    default_detail = "A record with this value already exists."


class ForeignKeyViolation(IntegrityViolation):
    """The row refers to a missing one, or is still referred to."""

    code = "reference_violation"
    default_detail = "A referenced record is missing or still in use."


class NotNullViolation(IntegrityViolation):
    """A required value is missing."""

    code = "value_missing"
    default_detail = "A required value is missing."


class CheckViolation(IntegrityViolation):
    """A value is outside what the table allows."""

    code = "value_not_allowed"
    default_detail = "A value is outside the allowed range."


class ConfigError(Exception):
    """The configuration cannot be used. The message lists every fault, one a line, without any value."""


class RuntimeNotOpen(RuntimeError):
    """A service was used before the application's lifespan (or the worker's start-up) opened it."""
