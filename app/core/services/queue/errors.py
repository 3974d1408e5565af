"""How a failure is written into a job's row."""

from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from app.core.services.log.redaction import clean_text
from app.core.services.queue.registry import describe_faults

MAX_LENGTH = 1000


def describe(error: BaseException) -> str:
    """Type and message, trimmed, without secrets, values a validation error quotes and control characters."""
    # Control characters too: PostgreSQL refuses NUL, and the failure must be stored.
    return clean_text(_told(error))[:MAX_LENGTH]


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {_message(error)}".removesuffix(": ")


def _message(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return describe_faults(error)
    if isinstance(error, DBAPIError):
        return str(error.orig).partition("\n")[0]  # the rest is SQL and, from PostgreSQL, the values in question
    if isinstance(error, BaseExceptionGroup):  # a TaskGroup's own message only counts them
        return "; ".join(map(_told, error.exceptions))
    try:
        return str(error)
    except Exception:  # the failure must be stored, whatever made it
        return ""
