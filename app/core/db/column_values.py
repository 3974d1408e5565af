"""Text from outside as the value of a column, or a ValueError that says what the column takes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter, ValidationError
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Numeric,
    SmallInteger,
    String,
    Uuid,
)
from sqlalchemy.types import TypeEngine

from app.core.db.base import UtcDateTime
from app.core.db.list_params import FilterParam, Lookup, fault

MAX_PART = 100
"""Characters of the text that `ilike` looks for; SQLite refuses long patterns."""

_EQUALITY = frozenset({Lookup.EQ, Lookup.NE, Lookup.NULL})
_ORDER = _EQUALITY | {Lookup.LT, Lookup.LTE, Lookup.GT, Lookup.GTE}
_TEXT = _ORDER | {Lookup.ILIKE}


@dataclass(frozen=True)
class ColumnValue:
    """How text becomes a column's value. `expected` completes the sentence "expected ..."."""

    expected: str
    adapter: TypeAdapter[Any]
    example: str
    lookups: frozenset[Lookup] = _EQUALITY
    # What pydantic would take beyond the obvious: 1_000, +1, a time stamp for a date, "on" for true.
    pattern: re.Pattern[str] | None = None

    def convert(self, text: str) -> Any:
        """The value, or a ValueError that does not repeat `text`."""
        if self.pattern is None or self.pattern.fullmatch(text):
            try:
                return self.adapter.validate_python(text)
            except ValidationError:
                pass  # its message may quote the text
        raise ValueError(f"expected {self.expected}")

    def compared_by(self, lookup: Lookup) -> "ColumnValue":
        """How the text of that comparison becomes its value."""
        return _OF_LOOKUPS.get(lookup, self)


def column_value(column: Column[Any]) -> ColumnValue:
    """How text becomes a value of `column`; a type that cannot be compared with text is a TypeError."""
    return type_value(str(column), column.type)


def type_value(name: str, type_: TypeEngine[Any]) -> ColumnValue:
    """How text becomes a value of `type_`, the type of the field `name`; TypeError as above."""
    type_ = type_.impl_instance if isinstance(type_, UtcDateTime) else type_
    for kind, make in _MAKERS.items():
        if isinstance(type_, kind):
            return make(type_)
    raise TypeError(f"{name} cannot be filtered by: no text is a single {type(type_).__name__}")


def integers(type_: Integer) -> range:
    """The integers that a column of this type holds on PostgreSQL."""
    bits = 63 if isinstance(type_, BigInteger) else 15 if isinstance(type_, SmallInteger) else 31
    return range(-(2**bits), 2**bits)


def typed(item: FilterParam, type_: TypeEngine[Any]) -> FilterParam:
    """`item` with the texts of a query as values of `type_`; InvalidInputError where they do not fit."""
    try:
        value = type_value(item.field, type_)
    except TypeError as exc:
        raise fault("filters", "unknown_field", f"{item.field} cannot be filtered by") from exc
    if item.lookup not in value.lookups:
        raise fault("filters", "unknown_lookup", f"{item.field} cannot be compared by {item.lookup}")
    compared = value.compared_by(item.lookup)

    def convert(given: Any) -> Any:
        return compared.convert(given) if isinstance(given, str) else given

    try:
        several = isinstance(item.value, list | tuple)
        converted = tuple(map(convert, item.value)) if several else convert(item.value)
    except ValueError as exc:
        raise fault("filters", "invalid_value", f"{item.field}: {exc}") from exc
    return item.model_copy(update={"value": converted})


def _enum(type_: Enum) -> ColumnValue:
    if type_.enum_class is None:
        names: Any = Literal[tuple(type_.enums)]
        return ColumnValue(f"one of {', '.join(type_.enums)}", TypeAdapter(names), type_.enums[0])
    values = [str(member.value) for member in type_.enum_class]
    return ColumnValue(f"one of {', '.join(values)}", TypeAdapter(type_.enum_class), values[0])


def _integer(type_: Integer) -> ColumnValue:
    low, high = integers(type_)[0], integers(type_)[-1]
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[int, Field(ge=low, le=high)])
    return ColumnValue(f"an integer from {low} to {high}", adapter, "1", _ORDER, re.compile(r"-?[0-9]{1,19}"))


def _number(type_: Numeric[Any] | Float[Any]) -> ColumnValue:
    plain = re.compile(r"-?[0-9]{1,100}(\.[0-9]{1,100})?")
    if type_.asdecimal and type_.precision is not None:
        digits, places = type_.precision, type_.scale or 0
        bounded: Any = Annotated[type_.python_type, Field(max_digits=digits, decimal_places=places)]
        return ColumnValue(f"a number of at most {digits} digits", TypeAdapter(bounded), "1", _ORDER, plain)
    return ColumnValue("a number", TypeAdapter(type_.python_type), "1", _ORDER, plain)


def _moment(type_: DateTime) -> ColumnValue:
    if not type_.timezone:
        raise TypeError("a column of moments without a time zone cannot be filtered by: use UtcDateTime")
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[AwareDatetime, AfterValidator(_in_utc)])
    example = "2026-01-31T12:00:00Z"
    return ColumnValue(
        f"a date and time with its zone, as {example}", adapter, example, _ORDER, re.compile("[0-9]{4}-.*")
    )


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as exc:  # the first hours of year 1, the last of 9999
        raise ValueError("outside the calendar") from exc


def _uuid(type_: Uuid[Any]) -> ColumnValue:
    python_type: Any = UUID if type_.as_uuid else Annotated[UUID, AfterValidator(str)]
    return ColumnValue("a UUID", TypeAdapter(python_type), "6fa459ea-ee8a-4ca4-894e-db77e160355e")


def _date(type_: Date) -> ColumnValue:
    day = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
    return ColumnValue("a date, as 2026-01-31", TypeAdapter(type_.python_type), "2026-01-31", _ORDER, day)


_FLAG = ColumnValue("true or false", TypeAdapter(bool), "true", pattern=re.compile("true|false"))
_PART = Annotated[str, Field(max_length=MAX_PART)]

UNTYPED = ColumnValue("text", TypeAdapter(str), "1", frozenset(Lookup))
"""For a field whose type is known only where the statement is built: `typed` converts it there."""

_OF_LOOKUPS = {
    Lookup.NULL: _FLAG,
    Lookup.ILIKE: ColumnValue(f"text of at most {MAX_PART} characters", TypeAdapter(_PART), "a"),
}


# Looked up in this order: an Enum is a String, a BigInteger an Integer.
_MAKERS: dict[type[TypeEngine[Any]], Callable[[Any], ColumnValue]] = {
    Enum: _enum,
    Boolean: lambda _: _FLAG,
    Integer: _integer,
    Numeric: _number,
    Float: _number,
    String: lambda _: ColumnValue("text", TypeAdapter(str), "a", _TEXT),
    DateTime: _moment,
    Date: _date,
    Uuid: _uuid,
}
