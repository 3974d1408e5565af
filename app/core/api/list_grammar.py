"""The grammar of list queries: what `sort` and `filters` say, or a fault that names the parameter."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from app.core.db import Lookup, SortOrder
from app.core.db.column_values import ColumnValue
from app.core.db.list_params import fault

MAX_SORTS = 5
MAX_FILTERS = 10
MAX_VALUES = 100

_SUFFIXES = {lookup.value: lookup for lookup in Lookup if lookup is not Lookup.EQ}
_SEVERAL = (Lookup.EQ, Lookup.NE)

# A filter is `field:value` or `field:[value,...]`; a backslash takes the character after it as it stands.
_FILTER = re.compile(
    r"(?P<field>[^:,]+):(?:\[(?P<list>(?:\\.|[^\\\]])*)\]|(?P<value>(?!\[)(?:\\.|[^\\,])+))(?=,|\Z)", re.DOTALL
)
_PIECE = re.compile(r"\\.|,|[^\\,]+", re.DOTALL)


class Sort(NamedTuple):
    """One item of `sort`."""

    field: str
    order: SortOrder


class Filter(NamedTuple):
    """One item of `filters`; `value` is a tuple where a list was given."""

    field: str
    lookup: Lookup
    value: Any


def read_sorts(text: str, fields: Iterable[str]) -> Iterable[Sort]:
    """`field:desc,field`, of `fields`."""
    items = text.split(",")
    if len(items) > MAX_SORTS:
        raise fault("sort", "too_many", f"at most {MAX_SORTS} sorts are allowed")
    seen: set[str] = set()
    for item in items:
        field, colon, order = item.partition(":")
        _check_field("sort", field, fields)
        _check_new("sort", field, seen)
        if colon and order not in list(SortOrder):
            raise fault("sort", "unknown_direction", f"{field}: the direction is asc or desc")
        yield Sort(field, SortOrder(order or SortOrder.ASC))


def read_filters(text: str, fields: Mapping[str, ColumnValue]) -> Iterable[Filter]:
    """`field:value,field__gte:value,field:[value,value]`, of `fields`."""
    seen: set[str] = set()
    values_left, position = MAX_VALUES, 0
    while position <= len(text):
        found = _FILTER.match(text, position)
        if found is None:
            raise fault("filters", "invalid_syntax", "expected field:value or field:[value,...], comma between")
        if len(seen) == MAX_FILTERS:
            raise fault("filters", "too_many", f"at most {MAX_FILTERS} filters are allowed")
        name, listed = found["field"], found["list"]
        field, lookup = _field_and_lookup(name, fields)
        _check_new("filters", name, seen)
        if listed is not None and lookup not in _SEVERAL:
            raise fault("filters", "single_value", f"{name} takes a single value")
        texts = _split(found["value"], is_list=False) if listed is None else _split(listed, is_list=True)
        values_left -= len(texts)
        if values_left < 0:
            raise fault("filters", "too_many", f"at most {MAX_VALUES} values are allowed")
        values = tuple(_convert(name, fields[field].compared_by(lookup), value) for value in texts)
        yield Filter(field, lookup, values[0] if listed is None else values)
        position = found.end() + 1


def _field_and_lookup(name: str, fields: Mapping[str, ColumnValue]) -> tuple[str, Lookup]:
    if name in fields:
        return name, Lookup.EQ
    field, _, suffix = name.rpartition("__")
    lookup = _SUFFIXES.get(suffix)
    if field not in fields or lookup is None:
        _check_field("filters", name, fields)
    elif lookup in fields[field].lookups:
        return field, lookup
    raise fault("filters", "unknown_lookup", f"{field} cannot be compared by {suffix}")


def _check_field(parameter: str, field: str, known: Iterable[str]) -> None:
    if not field:
        raise fault(parameter, "empty_item", "an item is empty")
    if field not in known:
        raise fault(parameter, "unknown_field", f"a field is unknown; known are {', '.join(known)}")


def _check_new(parameter: str, field: str, seen: set[str]) -> None:
    if field in seen:
        raise fault(parameter, "duplicate_field", f"{field} is given more than once")
    seen.add(field)


def _split(text: str, *, is_list: bool) -> list[str]:
    """The values in `text`, without their backslashes."""
    values = [""]
    for piece in _PIECE.findall(text):
        if piece == "," and is_list:
            values.append("")
        else:
            values[-1] += piece[1:] if piece.startswith("\\") else piece
    return values


def _convert(name: str, value: ColumnValue, text: str) -> Any:
    if not text:
        raise fault("filters", "empty_item", f"{name}: a value is empty")
    try:
        return value.convert(text)
    except ValueError as exc:
        raise fault("filters", "invalid_value", f"{name}: {exc}") from exc
