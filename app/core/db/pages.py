"""SQL of lists, the same on both databases: conditions, orders, and one page of rows as entities or as a schema."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from operator import ge, gt, le, lt
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel as PydanticModel
from pydantic import TypeAdapter
from sqlalchemy import Column, ColumnElement, Integer, Select, false, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.base import BaseModel
from app.core.db.column_values import filter_value, integers, type_value
from app.core.db.keyset import Keyset
from app.core.db.list_params import FilterParam, ListParams, Lookup, PaginatedResult, SortOrder, fault

S = TypeVar("S", bound=PydanticModel)

_SEVERAL = (list, tuple, set, frozenset)
_COMPARE: dict[Lookup, Callable[[Any, Any], ColumnElement[bool]]] = {
    Lookup.LT: lt,
    Lookup.LTE: le,
    Lookup.GT: gt,
    Lookup.GTE: ge,
}


class Lists(Protocol):
    """The part of a repository that a list needs."""

    model: Any

    def list_field(self, name: str) -> ColumnElement[Any]:
        """Return the column or expression of a field; TypeError where there is none."""

    def list_condition(self, item: FilterParam) -> ColumnElement[bool]:
        """Return the condition of a filter."""


async def read_page(
    lists: Lists, found: Select[Any], params: ListParams, *, db: AsyncSession, into: type[PydanticModel] | None
) -> PaginatedResult[Any]:
    """Read the page of `found` that `params` asks for: two statements, with a cursor one."""
    found = found.where(*(_condition(lists, params, item) for item in params.filters or ()))
    shown = found if into is None else found.with_only_columns(*_columns(lists, into), maintain_column_froms=True)
    if params.cursor is not None:
        walk = _keyset(lists.model, params)
        around, cursors = walk.cut((await db.execute(walk.page(shown.add_columns(*walk.columns)))).all())
        return PaginatedResult(_items(around, into), None, None, params.per_page, cursors)
    page = shown.order_by(*_order(lists, params)).limit(params.per_page)
    rows = (await db.execute(page.offset((params.page - 1) * params.per_page))).all()
    total = await count_rows(found, lists.model, db=db)
    return PaginatedResult(_items(rows, into), total, params.page, params.per_page)


async def count_rows(statement: Select[Any], model: type[BaseModel], *, db: AsyncSession) -> int:
    """Count the rows of `statement`."""
    return await db.scalar(select(func.count()).select_from(statement.with_only_columns(model.id).subquery())) or 0


def condition(field: ColumnElement[Any], value: Any, lookup: Lookup = Lookup.EQ) -> ColumnElement[bool]:
    """Compare `field` with `value`; several values are one of them, None is NULL."""
    if lookup is Lookup.NULL:
        return field.is_(None) if value else field.is_not(None)
    if lookup is Lookup.ILIKE:
        return field.icontains(value, autoescape=True)
    if compare := _COMPARE.get(lookup):
        return compare(field, value)
    return _differs(field, value) if lookup is Lookup.NE else _equals(field, value)


def _equals(field: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    if isinstance(value, _SEVERAL):
        return field.in_([item for item in value if _can_hold(field, item)])
    if value is None:
        return field.is_(None)
    return field == value if _can_hold(field, value) else false()


def _differs(field: ColumnElement[Any], value: Any) -> ColumnElement[bool]:
    if value is None:
        return field.is_not(None)
    differs = field.not_in(value) if isinstance(value, _SEVERAL) else field != value
    # A missing value differs from every value; SQL alone would say it does not know.
    return or_(differs, field.is_(None)) if _can_be_null(field) else differs


def _can_hold(field: ColumnElement[Any], value: Any) -> bool:
    """Databases raise where an integer beyond the column is compared with it."""
    return not (isinstance(value, int) and isinstance(field.type, Integer)) or value in integers(field.type)


def _can_be_null(field: ColumnElement[Any]) -> bool:
    return bool(getattr(field, "nullable", True))


def _field(lists: Lists, params: ListParams, parameter: str, name: str) -> ColumnElement[Any]:
    try:
        return lists.list_field(name)
    except TypeError as exc:
        if params.model is not None:  # checked at the start: a mistake in code
            raise
        raise fault(parameter, "unknown_field", f"this list has no field {name}") from exc


def _condition(lists: Lists, params: ListParams, item: FilterParam) -> ColumnElement[bool]:
    if params.model is None:
        field = _field(lists, params, "filters", item.field)
        try:
            value = type_value(item.field, field.type)
        except TypeError as exc:
            raise fault("filters", "unknown_field", f"{item.field} cannot be filtered by") from exc
        item = item.model_copy(update={"value": filter_value(item.field, item.lookup, item.value, value)})
    return lists.list_condition(item)


def _order(lists: Lists, params: ListParams) -> list[ColumnElement[Any]]:
    """Return the sorts asked for; `id` last, so that no row is on two pages or on none."""
    asked = [(item.field, item.order) for item in params.sort or ()]
    if "id" not in [field for field, _ in asked]:
        asked.append(("id", SortOrder.ASC))
    return [_ordered(_field(lists, params, "sort", field), order) for field, order in asked]


def _ordered(field: ColumnElement[Any], order: SortOrder) -> ColumnElement[Any]:
    """Sort by `field`, NULL as the greatest value: PostgreSQL's default, and said where SQLite differs."""
    if order is SortOrder.DESC:
        return field.desc().nulls_first() if _can_be_null(field) else field.desc()
    return field.asc().nulls_last() if _can_be_null(field) else field.asc()


def _keyset(model: type[BaseModel], params: ListParams) -> Keyset:
    try:
        return Keyset(model, params)
    except TypeError as exc:
        if params.model is not None:
            raise
        raise fault("sort", "unfit_for_cursor", "with a cursor the list cannot be sorted by this field") from exc
    except ValueError as exc:
        raise fault("cursor", "invalid_cursor", "not a cursor of a list with this sort and these filters") from exc


def _columns(lists: Lists, schema: type[PydanticModel]) -> list[ColumnElement[Any]]:
    fields = [lists.list_field(name) for name in schema.model_fields]
    # A label costs more than it gives where the column has a name of its own.
    return [field if isinstance(field, Column) else field.label(None) for field in fields]


def _items(rows: Iterable[Any], into: type[S] | None) -> list[Any]:
    """The first column of every row, an entity, or the columns as `into`."""
    if into is None:
        return [row[0] for row in rows]
    names = tuple(into.model_fields)
    # By the fields' names, an alias is for the API; not strictly, a keyset has columns of its own at the end.
    return _adapter(into).validate_python([dict(zip(names, row, strict=False)) for row in rows], by_name=True)


@lru_cache
def _adapter(schema: type[S]) -> TypeAdapter[list[S]]:
    return TypeAdapter(list[schema])  # type: ignore[valid-type]  # known when it runs only
