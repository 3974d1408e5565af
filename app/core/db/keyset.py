"""Keyset paging: a page is what comes after a row, so changes elsewhere in the list shift nothing."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    REAL,
    Boolean,
    Column,
    ColumnElement,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Numeric,
    Select,
    String,
    Text,
    Uuid,
    literal,
    tuple_,
    type_coerce,
)
from sqlalchemy.types import TypeEngine

from app.core.db.base import BaseModel, UtcDateTime
from app.core.db.cursors import Cursor, Position
from app.core.db.list_params import Cursors, ListParams, SortOrder

MAX_KEY_LENGTH = 500
"""Of a text to sort by, in characters: the text is part of the cursor, and that part of a URL and a header."""

_FLOAT4_DIGITS = 24
_EXACT = (Integer, Boolean, Enum, Numeric, Date, DateTime, UtcDateTime, Uuid)
# SQLite keeps decimals as floats, and may keep more digits than the column shows.
_STORED_DECIMAL = Numeric().with_variant(Float(), "sqlite")


def can_be_key(column: Column[Any]) -> bool:
    """Whether a cursor can say where in the order of this column it stands: never NULL, and read as it compares."""
    type_ = column.type
    if column.nullable or isinstance(type_, Text):
        return False
    if isinstance(type_, String) and not isinstance(type_, Enum):
        return type_.length is not None and type_.length <= MAX_KEY_LENGTH
    if isinstance(type_, Float):  # four-byte floats do not survive the way through Python, `asdecimal` rounds
        has_eight = type_.precision is None or type_.precision > _FLOAT4_DIGITS
        return has_eight and not type_.asdecimal and not isinstance(type_, REAL)
    return isinstance(type_, _EXACT)


class Keyset:
    """The order of a walk, at most one column and then `id` in the same direction, and the pages of it."""

    def __init__(self, model: type[BaseModel], params: ListParams, cursor: Cursor) -> None:
        columns = model.__mapper__.columns
        sorts = params.sort or ()
        if len(sorts) > 1:
            raise TypeError("a walk by cursor takes one sort")
        field, order = (sorts[0].field, sorts[0].order) if sorts else ("id", SortOrder.ASC)
        self._id = columns["id"]
        self._column = None if field == "id" else columns.get(field)
        if field != "id" and (self._column is None or not can_be_key(self._column)):
            raise TypeError(f"a walk by cursor cannot be sorted by {model.__name__}.{field}")
        self._descends = order is SortOrder.DESC
        # The type too: an old cursor must not bring a text to a column that now is a number.
        of_column = f"{cursor.seal.scope} {model.__tablename__}.{field} {columns[field].type!r}"
        self._seal = replace(cursor.seal, scope=of_column)
        self._at = self._seal.read(cursor.text) if cursor.text else None
        self._per_page = params.per_page

    @property
    def columns(self) -> list[ColumnElement[Any]]:
        """What a statement must select last: `cut` reads where each row stands from it."""
        key = self._id if self._column is None else type_coerce(self._column, _read_type(self._column))
        return [key.label("cursor_key"), self._id.label("cursor_id")]

    def page(self, statement: Select[Any]) -> Select[Any]:
        """`statement` for one page, with one row more where there is more."""
        at = self._at
        backwards = at is not None and at.backwards
        if at is not None:
            statement = statement.where(self._beyond(at))
        columns = [self._id] if self._column is None else [self._column, self._id]
        order = [column.desc() if self._descends != backwards else column.asc() for column in columns]
        return statement.order_by(*order).limit(self._per_page + 1)

    def cut(self, rows: Sequence[Any]) -> tuple[list[Any], Cursors]:
        """The rows of the page in the order of the list, and the cursors of its neighbours."""
        at = self._at
        found = list(rows[: self._per_page])
        has_more = len(rows) > self._per_page
        if at is None:
            return found, Cursors(next=self._write(found[-1], backwards=False) if has_more else None, prev=None)
        if at.backwards:
            found.reverse()
        # On the side it came from there was a row, on the other there is one more or none.
        forth = self._write(found[-1], backwards=False) if found else self._way_back(at)
        back = self._write(found[0], backwards=True) if found else self._way_back(at)
        if at.backwards:
            return found, Cursors(next=forth, prev=back if has_more else None)
        return found, Cursors(next=forth if has_more else None, prev=back)

    def _write(self, row: Any, *, backwards: bool) -> str:
        *_, key, row_id = row
        return self._seal.write(Position(None if self._column is None else key, row_id, backwards))

    def _way_back(self, at: Position) -> str:
        """From a page without rows: what is on the other side of where it began."""
        there = replace(at, backwards=not at.backwards, inclusive=not at.inclusive)
        return self._seal.write(there)

    def _beyond(self, at: Position) -> ColumnElement[bool]:
        here: Any = self._id
        there: Any = literal(at.id, self._id.type)
        if self._column is not None:
            # One comparison of rows, which an index over both columns answers.
            here = tuple_(self._column, self._id)
            there = tuple_(literal(at.key, _bound_type(self._column)), there)
        found: ColumnElement[bool]
        if self._descends != at.backwards:
            found = here <= there if at.inclusive else here < there
        else:
            found = here >= there if at.inclusive else here > there
        return found


def _read_type(column: Column[Any]) -> TypeEngine[Any]:
    return String() if isinstance(column.type, Enum) else _bound_type(column)


def _bound_type(column: Column[Any]) -> TypeEngine[Any]:
    return _STORED_DECIMAL if isinstance(column.type, Numeric) else column.type
