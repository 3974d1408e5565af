"""Failures in words that may be stored and logged, and pauses between tries while something is unavailable."""

import random
from typing import Any

from pydantic import ValidationError
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.core.services.log import logger
from app.core.services.log.redaction import clean_text

MAX_LENGTH = 1000

UNAVAILABLE = (OperationalError, InterfaceError, PoolTimeout, OSError)
"""Raised by a database that cannot be reached now."""

_EXPECTED = (SQLAlchemyError, RedisError, OSError)
"""Raised where a server is unavailable: a line says enough."""

_random = random.SystemRandom()


def describe(error: BaseException) -> str:
    """Return type and message, trimmed, without secrets, values a validation error quotes and control characters."""
    # Control characters too: PostgreSQL refuses NUL, and the failure must be stored.
    return clean_text(_named(error))[:MAX_LENGTH]


def describe_faults(error: ValidationError) -> str:
    """Return what is wrong, without the values that were given."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'data'}: {fault['msg']}" for fault in faults)


def jittered(seconds: float) -> float:
    """Return `seconds`, spread by a quarter either way."""
    return seconds * _random.uniform(0.75, 1.25)


class Outage:
    """Pauses that grow from `first` to `longest` seconds; the first failure and the recovery are logged."""

    def __init__(self, failing: str, recovered: str, *, first: float = 0.0, longest: float = 0.0) -> None:
        self._failing = failing
        self._recovered = recovered
        self._first = first
        self._longest = longest
        self._pause: float | None = None

    def failed(self, error: BaseException, **fields: Any) -> float:
        """Return the seconds to wait after this failure."""
        if self._pause is None:  # once, not at every try
            trace = None if isinstance(error, _EXPECTED) else error
            logger.error(self._failing, error=describe(error), exc_info=trace, **fields)
            self._pause = self._first
        else:
            self._pause = min(self._pause * 2, self._longest)
        return min(jittered(self._pause), self._longest)

    def over(self, **fields: Any) -> None:
        """Note a success."""
        if self._pause is not None:
            logger.info(self._recovered, **fields)
        self._pause = None


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {_message(error)}".removesuffix(": ")


def _message(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return describe_faults(error)
    if isinstance(error, DBAPIError):
        return str(error.orig).partition("\n")[0]  # the rest is SQL and, from PostgreSQL, the values in question
    if isinstance(error, BaseExceptionGroup):  # a TaskGroup's own message only counts them
        return "; ".join(map(_named, error.exceptions))
    try:
        return str(error)
    except Exception:  # the failure must be stored, whatever made it
        return ""
