"""What a filter asks of a row, the same on both databases."""

from collections.abc import Callable
from operator import ge, gt, le, lt
from typing import Any

from sqlalchemy import ColumnElement, Integer, false, or_

from app.core.db.column_values import integers
from app.core.db.list_params import Lookup, SortOrder

_COMPARE: dict[Lookup, Callable[[Any, Any], ColumnElement[bool]]] = {
    Lookup.LT: lt,
    Lookup.LTE: le,
    Lookup.GT: gt,
    Lookup.GTE: ge,
}


def condition(field: ColumnElement[Any], value: Any, lookup: Lookup = Lookup.EQ) -> ColumnElement[bool]:
    """`field` compared with `value`; several values are one of them, None is NULL."""
    if lookup is Lookup.NULL:
        return field.is_(None) if value else field.is_not(None)
    if lookup is Lookup.ILIKE:
        return field.icontains(value, autoescape=True)
    if compare := _COMPARE.get(lookup):
        return compare(field, value)
    return _differs(field, value) if lookup is Lookup.NE else _equals(field, value)


def ordering(field: ColumnElement[Any], order: SortOrder) -> ColumnElement[Any]:
    """`field` in that direction, NULL as the greatest value: PostgreSQL's default, and said where SQLite differs."""
    descends = order is SortOrder.DESC
    ordered = field.desc() if descends else field.asc()
    if not _can_be_null(field):
        return ordered
    return ordered.nulls_first() if descends else ordered.nulls_last()


def _equals(field: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    if isinstance(value, list | tuple | set | frozenset):
        return field.in_([item for item in value if _can_hold(field, item)])
    if value is None:
        return field.is_(None)
    return field == value if _can_hold(field, value) else false()


def _differs(field: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    if value is None:
        return field.is_not(None)
    several = isinstance(value, list | tuple | set | frozenset)
    differs = field.not_in(value) if several else field != value
    # A missing value differs from every value; SQL alone would say it does not know.
    return or_(differs, field.is_(None)) if _can_be_null(field) else differs


def _can_hold(field: ColumnElement[Any], value: Any) -> bool:
    """Databases raise where an integer beyond the column is compared with it."""
    return not (isinstance(value, int) and isinstance(field.type, Integer)) or value in integers(field.type)


def _can_be_null(field: ColumnElement[Any]) -> bool:
    return bool(getattr(field, "nullable", True))
