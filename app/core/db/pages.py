"""One page of a list: its conditions, its order, and its rows as entities or as a schema."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel as PydanticModel
from pydantic import TypeAdapter
from sqlalchemy import Column, ColumnElement, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db.base import BaseModel
from app.core.db.column_values import typed
from app.core.db.conditions import ordering
from app.core.db.cursors import Cursor
from app.core.db.keyset import Keyset
from app.core.db.list_params import FilterParam, ListParams, PaginatedResult, SortOrder, fault

S = TypeVar("S", bound=PydanticModel)


class Lists(Protocol):
    """The part of a repository that a list needs."""

    model: Any

    def list_field(self, name: str) -> ColumnElement[Any]:
        """What a field stands for; TypeError where there is none."""

    def list_condition(self, item: FilterParam) -> ColumnElement[bool]:
        """What a filter asks."""


async def read_page(
    lists: Lists, found: Select[Any], params: ListParams, *, db: AsyncSession, into: type[PydanticModel] | None
) -> PaginatedResult[Any]:
    """The page of `found` that `params` asks for: two statements, with a cursor one."""
    found = found.where(*(_condition(lists, params, item) for item in params.filters or ()))
    shown = found if into is None else found.with_only_columns(*_columns(lists, into), maintain_column_froms=True)
    if params.cursor is not None:
        walk = _keyset(lists.model, params, params.cursor)
        around, cursors = walk.cut((await db.execute(walk.page(shown.add_columns(*walk.columns)))).all())
        return PaginatedResult(_items(around, into), None, None, params.per_page, cursors)
    page = shown.order_by(*_order(lists, params)).limit(params.per_page)
    rows = (await db.execute(page.offset((params.page - 1) * params.per_page))).all()
    total = await count_rows(found, lists.model, db=db)
    return PaginatedResult(_items(rows, into), total, params.page, params.per_page)


async def count_rows(statement: Select[Any], model: type[BaseModel], *, db: AsyncSession) -> int:
    """Count the rows of `statement`."""
    return await db.scalar(select(func.count()).select_from(statement.with_only_columns(model.id).subquery())) or 0


def _field(lists: Lists, params: ListParams, parameter: str, name: str) -> ColumnElement[Any]:
    try:
        return lists.list_field(name)
    except TypeError as exc:
        if params.model is not None:  # checked at the start: a mistake in code
            raise
        raise fault(parameter, "unknown_field", f"this list has no field {name}") from exc


def _condition(lists: Lists, params: ListParams, item: FilterParam) -> ColumnElement[bool]:
    if params.model is None:
        item = typed(item, _field(lists, params, "filters", item.field).type)
    return lists.list_condition(item)


def _order(lists: Lists, params: ListParams) -> list[ColumnElement[Any]]:
    """The sorts asked for; `id` last, so that no row is on two pages or on none."""
    asked = [(item.field, item.order) for item in params.sort or ()]
    if "id" not in [field for field, _ in asked]:
        asked.append(("id", SortOrder.ASC))
    return [ordering(_field(lists, params, "sort", field), order) for field, order in asked]


def _keyset(model: type[BaseModel], params: ListParams, cursor: Cursor) -> Keyset:
    try:
        return Keyset(model, params, cursor)
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
