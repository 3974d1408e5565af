"""Text from outside as the value of a column, or a ValueError that says what the column takes."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError
from sqlalchemy import BigInteger, Boolean, Date, DateTime, Enum, Float, Integer, Numeric, SmallInteger, String, Uuid
from sqlalchemy.types import TypeEngine

from app.core.db.base import UtcDateTime
from app.core.db.list_params import Lookup, fault

MAX_PART = 100
"""Characters of the text that `ilike` looks for; SQLite refuses long patterns."""

_EQUALITY = frozenset({Lookup.EQ, Lookup.NE, Lookup.NULL})
_ORDER = _EQUALITY | {Lookup.LT, Lookup.LTE, Lookup.GT, Lookup.GTE}
_TEXT = _ORDER | {Lookup.ILIKE}

# What pydantic would take beyond the obvious: 1_000, +1, a time stamp for a date, "on" for true.
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_NUMBER = re.compile(r"-?[0-9]{1,100}(\.[0-9]{1,100})?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT = re.compile("[0-9]{4}-.*")
_BOOLEAN = re.compile("true|false")


def in_utc(value: datetime) -> datetime:
    """Return the moment in UTC; refused where that is beyond the calendar."""
    try:
        return value.astimezone(UTC)
    except OverflowError as exc:  # the first hours of year 1, the last of 9999
        raise PydanticCustomError("moment", "Value is outside the calendar") from exc


_Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]
_StoredText = Annotated[str, Field(pattern=r"^[^\x00]*$")]


@dataclass(frozen=True)
class ColumnValue:
    """Converts text to a column's value. `expected` completes the sentence "expected ..."; `type` is for pydantic."""

    expected: str
    type: Any
    example: str
    lookups: frozenset[Lookup] = _EQUALITY
    pattern: re.Pattern[str] | None = None

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.type)

    def convert(self, text: str) -> Any:
        """Return the value, or raise a ValueError that does not repeat `text`."""
        if self.pattern is None or self.pattern.fullmatch(text):
            try:
                return self._adapter.validate_python(text)
            except ValidationError:
                pass  # its message may quote the text
        raise ValueError(f"expected {self.expected}")

    def example_of(self, lookup: Lookup) -> str:
        """Return a text for that comparison."""
        return _OF_LOOKUPS.get(lookup, self).example


_FLAG = ColumnValue("true or false", bool, "true", pattern=_BOOLEAN)
_OF_LOOKUPS = {
    Lookup.NULL: _FLAG,
    Lookup.ILIKE: ColumnValue(
        f"text of at most {MAX_PART} characters", Annotated[str, Field(max_length=MAX_PART)], "a"
    ),
}

UNTYPED = ColumnValue("text", str, "1", frozenset(Lookup))
"""For a field whose type is known only where the statement is built: `filter_value` converts it there."""


def type_value(name: str, type_: TypeEngine[Any]) -> ColumnValue:
    """Return what converts text to `type_`, the type of the field `name`; TypeError where no text is one value."""
    match type_:  # an Enum is a String
        case Enum():
            value = _enum(type_)
        case Boolean():
            value = _FLAG
        case Integer():
            low, high = integers(type_)[0], integers(type_)[-1]
            bounded: Any = Annotated[int, Field(ge=low, le=high)]
            value = ColumnValue(f"an integer from {low} to {high}", bounded, "1", _ORDER, _INTEGER)
        case Numeric() | Float():
            value = _number(type_)
        case String():
            value = ColumnValue("text", _StoredText, "a", _TEXT)
        case UtcDateTime() | DateTime(timezone=True):
            example = "2026-01-31T12:00:00Z"
            value = ColumnValue(f"a date and time with its zone, as {example}", _Moment, example, _ORDER, _MOMENT)
        case DateTime():
            raise TypeError("a column of moments without a time zone cannot be filtered by: use UtcDateTime")
        case Date():
            value = ColumnValue("a date, as 2026-01-31", type_.python_type, "2026-01-31", _ORDER, _DAY)
        case Uuid():
            identifier: Any = UUID if type_.as_uuid else Annotated[UUID, AfterValidator(str)]
            value = ColumnValue("a UUID", identifier, "6fa459ea-ee8a-4ca4-894e-db77e160355e")
        case _:
            raise TypeError(f"{name} cannot be filtered by: no text is a single {type(type_).__name__}")
    return value


def integers(type_: Integer) -> range:
    """Return the integers that a column of this type holds on PostgreSQL."""
    bits = 63 if isinstance(type_, BigInteger) else 15 if isinstance(type_, SmallInteger) else 31
    return range(-(2**bits), 2**bits)


def filter_value(field: str, lookup: Lookup, given: Any, value: ColumnValue) -> Any:
    """Convert the text or texts of a filter; InvalidInputError where `value` takes no such comparison or text."""
    name = field if lookup is Lookup.EQ else f"{field}__{lookup}"
    if lookup not in value.lookups:
        raise fault("filters", "unknown_lookup", f"{field} cannot be compared by {lookup}")
    compared = _OF_LOOKUPS.get(lookup, value)

    def convert(one: Any) -> Any:
        return compared.convert(one) if isinstance(one, str) else one

    try:
        return tuple(map(convert, given)) if isinstance(given, list | tuple) else convert(given)
    except ValueError as exc:
        raise fault("filters", "invalid_value", f"{name}: {exc}") from exc


def _enum(type_: Enum) -> ColumnValue:
    names = type_.enums if type_.enum_class is None else [str(member.value) for member in type_.enum_class]
    return ColumnValue(f"one of {', '.join(names)}", type_.enum_class or Literal[tuple(names)], names[0])


def _number(type_: Numeric[Any] | Float[Any]) -> ColumnValue:
    if not type_.asdecimal or type_.precision is None:
        return ColumnValue("a number", type_.python_type, "1", _ORDER, _NUMBER)
    digits, places = type_.precision, type_.scale or 0
    bounded: Any = Annotated[type_.python_type, Field(max_digits=digits, decimal_places=places)]
    return ColumnValue(f"a number of at most {digits} digits", bounded, "1", _ORDER, _NUMBER)
