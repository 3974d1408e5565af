"""What the OpenAPI document says of a list's parameters, written from what the list declares."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from app.core.api.list_grammar import MAX_FILTERS, MAX_SORTS, MAX_VALUES
from app.core.db import Lookup
from app.core.db.column_values import ColumnValue

PAGE = "The number of the page. Not with `cursor`."

_MEANINGS = {
    Lookup.NE: "not this value, or none of several; no value counts",
    Lookup.LT: "less",
    Lookup.LTE: "less or equal",
    Lookup.GT: "greater",
    Lookup.GTE: "greater or equal",
    Lookup.ILIKE: "a part of the text, in upper or lower case",
    Lookup.NULL: "`true` where there is no value, `false` where there is one",
}


class Documented(NamedTuple):
    """A description, and queries that the list answers."""

    text: str
    examples: list[str]


def of_sort(fields: tuple[str, ...]) -> Documented:
    """The parameter `sort` of a list with these fields."""
    text = (
        f"Sorts in their order, `field:asc` or `field:desc` (`asc` may be left out), at most {MAX_SORTS}. "
        f"No value counts as the greatest. Fields: {_names(fields)}."
    )
    examples = [fields[0], f"{fields[0]}:desc"]
    return Documented(text, [*examples, f"{fields[-1]}:desc,{fields[0]}"] if len(fields) > 1 else examples)


def of_filters(values: Mapping[str, ColumnValue]) -> Documented:
    """The parameter `filters` of a list with these fields."""
    text = (
        f"Filters that all must fit, `field:value` or `field:[value,value]`, at most {MAX_FILTERS} "
        f"with {MAX_VALUES} values. A comma inside a value is written `\\,`, a backslash `\\\\`. "
        f"Fields: {_names(values)}. A suffix compares otherwise:\n\n{_suffixes(values)}"
    )
    first = next(iter(values))
    example = _example(values[first], Lookup.EQ)
    examples = [f"{first}:{example}", f"{first}:[{example},{example}]"]
    for lookup in (Lookup.GTE, Lookup.ILIKE, Lookup.NULL):
        if able := _able(values, lookup):
            examples.append(f"{able[-1]}__{lookup}:{_example(values[able[-1]], lookup)}")
    return Documented(text, examples)


def of_cursor(fields: Iterable[str]) -> str:
    """The parameter `cursor` of a list that can be walked in the order of these fields."""
    return (
        "Empty for the first page, then `next_cursor` or `prev_cursor` of an answer, with the same `sort` and "
        "`filters`. Nothing is counted, and no row is missed or shown twice because others come and go. "
        f"Takes no sort (by `id` then) or one by: {_names(fields) or 'none'}."
    )


def _suffixes(values: Mapping[str, ColumnValue]) -> str:
    lines = []
    for lookup, meaning in _MEANINGS.items():
        if able := _able(values, lookup):
            fields = "" if len(able) == len(values) else f": {_names(able)}"
            lines.append(f"- `__{lookup}` ({meaning}){fields}")
    return "\n".join(lines)


def _example(value: ColumnValue, lookup: Lookup) -> str:
    return re.sub(r"([\\,\[\]])", r"\\\1", value.compared_by(lookup).example)


def _able(values: Mapping[str, ColumnValue], lookup: Lookup) -> list[str]:
    return [name for name, value in values.items() if lookup in value.lookups]


def _names(fields: Iterable[str]) -> str:
    return ", ".join(f"`{field}`" for field in fields)
