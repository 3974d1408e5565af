"""Keyset paging: a page is what comes after a row, so changes elsewhere in the list shift nothing."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from operator import ge, gt, le, lt
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, TypeAdapter
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
from app.core.db.column_values import type_value
from app.core.db.list_params import Cursors, ListParams, SortOrder

MAX_KEY_LENGTH = 500
"""Of a text to sort by, in characters: the text is part of the cursor, and that part of a URL and a header."""

MAX_CURSOR_LENGTH = 6000
"""Enough for such a text with every character escaped; nothing longer is decoded."""

MAX_EXPONENT = 1000
"""Of a decimal: PostgreSQL raises on 1e999999 and on 0e-999999."""

_CHECKSUM_BYTES = 8
_FLOAT4_BITS = 24
# SQLite keeps decimals as floats, and may keep more digits than the column shows.
_STORED_DECIMAL = Numeric().with_variant(Float(), "sqlite")


def _within_bounds(value: Decimal) -> Decimal:
    if abs(value.adjusted()) > MAX_EXPONENT:
        raise ValueError("beyond what a column holds")
    return value


_DecimalKey = (
    Annotated[int, Field(ge=-(2**63), lt=2**63)]
    | Annotated[float, Field(allow_inf_nan=False)]
    | Annotated[Decimal, AfterValidator(_within_bounds)]
)


class Place(NamedTuple):
    """A place in a sorted list: next to the row with this sort value and id, whether that row still exists or not.

    `key` is None where the list is sorted by `id` alone; `inclusive` counts the row itself in.
    """

    key: Any
    id: Any
    backwards: bool
    inclusive: bool = False


def key_type(column: Column[Any]) -> Any:
    """Return the type of a key as it is read; None for a column whose order no cursor can follow.

    A key is never NULL and is read as it compares: of an enum the stored name, of a decimal what the database keeps.
    """
    found: Any = None
    match column.type:
        case _ if column.nullable:
            pass
        case Enum(enums=names):
            found = Literal[tuple(names)]
        case String(length=int(length)) as text if length <= MAX_KEY_LENGTH and not isinstance(text, Text):
            found = type_value(column.name, text).type
        case Numeric():
            found = _DecimalKey
        case Float(asdecimal=False, precision=bits) as number:  # `asdecimal` rounds
            # Four-byte floats do not survive the way through Python.
            found = None if isinstance(number, REAL) or (bits or 53) <= _FLOAT4_BITS else float
        case DateTime():
            found = datetime
        case Integer() | Boolean() | Date() | UtcDateTime() | Uuid():
            found = type_value(column.name, column.type).type
    return found


class Keyset:
    """The order of a walk, at most one column and then `id` in the same direction, and the pages of it.

    A cursor is base64url over a checksum and a place as JSON. The checksum binds it to the table, the sort and the
    filters. It is no signature: a cursor that somebody makes up shows no more than those of the list, which hold the
    sort value of any of its rows.
    """

    def __init__(self, model: type[BaseModel], params: ListParams) -> None:
        columns = model.__mapper__.columns
        sorts = params.sort or ()
        if len(sorts) > 1:
            raise TypeError("a walk by cursor takes one sort")
        field, order = (sorts[0].field, sorts[0].order) if sorts else ("id", SortOrder.ASC)
        self._id = columns["id"]
        self._column = None if field == "id" else columns.get(field)
        if field != "id" and (self._column is None or key_type(self._column) is None):
            raise TypeError(f"a walk by cursor cannot be sorted by {model.__name__}.{field}")
        self._descends = order is SortOrder.DESC
        # The type too: an old cursor must not bring a text to a column that now is a number.
        scope = (model.__tablename__, field, order.value, columns[field].type, list(params.filters or ()))
        self.scope = repr(scope).encode()
        self._at = self.read(params.cursor) if params.cursor else None
        self._backwards = self._at is not None and self._at.backwards
        self._per_page = params.per_page

    @property
    def columns(self) -> list[ColumnElement[Any]]:
        """The columns that a statement must select last: `cut` reads the place of each row from them."""
        key: ColumnElement[Any] = self._id
        if (column := self._column) is not None:
            key = type_coerce(column, String() if isinstance(column.type, Enum) else _bound_type(column))
        return [key.label("cursor_key"), self._id.label("cursor_id")]

    def page(self, statement: Select[Any]) -> Select[Any]:
        """Limit `statement` to one page, with one row more where there is more."""
        if self._at is not None:
            statement = statement.where(self._beyond(self._at))
        columns = [self._id] if self._column is None else [self._column, self._id]
        order = [column.desc() if self._descends != self._backwards else column.asc() for column in columns]
        return statement.order_by(*order).limit(self._per_page + 1)

    def cut(self, rows: Sequence[Any]) -> tuple[list[Any], Cursors]:
        """Return the rows of the page in the order of the list, and the cursors of its neighbours."""
        found = list(rows[: self._per_page])
        has_more = len(rows) > self._per_page
        # On the side it came from there was a row, on the other there is one more or none.
        follows, precedes = has_more, self._at is not None
        if self._backwards:
            found.reverse()
            follows, precedes = True, has_more
        forth = self._beside(found[-1:], backwards=False) if follows else None
        back = self._beside(found[:1], backwards=True) if precedes else None
        return found, Cursors(next=forth, prev=back)

    def _beside(self, row: Sequence[Any], *, backwards: bool) -> str:
        """Return the cursor from this row on; from a page without rows, to the other side of where it began."""
        if self._at and not row:
            return self.write(self._at._replace(backwards=not self._backwards, inclusive=not self._at.inclusive))
        *_, key, row_id = row[0]
        return self.write(Place(None if self._column is None else key, row_id, backwards))

    def write(self, place: Place) -> str:
        """Return the cursor of a place."""
        return encoded(self.scope, json.dumps(place, separators=(",", ":"), ensure_ascii=False, default=str).encode())

    def read(self, cursor: str) -> Place:
        """Return the place of a cursor that `write` gave for this list; ValueError for any other text."""
        if len(cursor) <= MAX_CURSOR_LENGTH:
            text = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))[_CHECKSUM_BYTES:]
            place = Place(*_place_type(self._column, self._id).validate_json(text, strict=True))
            # Both encodings have several spellings, and the checksum may be another's.
            if self.write(place) == cursor:
                return place
        raise ValueError("not a cursor of this list")

    def _beyond(self, at: Place) -> ColumnElement[bool]:
        here: Any = self._id
        there: Any = literal(at.id, self._id.type)
        if self._column is not None:
            # One comparison of rows, which an index over both columns answers.
            here = tuple_(self._column, self._id)
            there = tuple_(literal(at.key, _bound_type(self._column)), there)
        smaller, greater = (le, ge) if at.inclusive else (lt, gt)
        compare: Any = smaller if self._descends != at.backwards else greater
        found: ColumnElement[bool] = compare(here, there)
        return found


def encoded(scope: bytes, text: bytes) -> str:
    """Return the cursor of a place that is JSON already."""
    checksum = sha256(scope + b"\0" + text).digest()[:_CHECKSUM_BYTES]
    return urlsafe_b64encode(checksum + text).rstrip(b"=").decode()


@lru_cache
def _place_type(column: Column[Any] | None, row_id: Column[Any]) -> TypeAdapter[Any]:
    """Return the type of a place: only values that both databases compare with the columns."""
    key = None if column is None else key_type(column)
    place: Any = tuple[key, type_value("id", row_id.type).type, bool, bool]  # type: ignore[misc,valid-type]  # known when it runs only
    return TypeAdapter(place)


def _bound_type(column: Column[Any]) -> TypeEngine[Any]:
    return _STORED_DECIMAL if isinstance(column.type, Numeric) else column.type
