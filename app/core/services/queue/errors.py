"""How a failure is written into a job's row."""

from pydantic import ValidationError

from app.core.services.log.redaction import clean_text
from app.core.services.queue.registry import describe_faults

MAX_LENGTH = 1000


def describe(error: BaseException) -> str:
    """Type and message, trimmed, without secrets, values a validation error quotes and control characters."""
    message = describe_faults(error) if isinstance(error, ValidationError) else str(error)
    # Control characters too: PostgreSQL refuses NUL, and the failure must be stored.
    return clean_text(f"{type(error).__name__}: {message}".removesuffix(": "))[:MAX_LENGTH]
