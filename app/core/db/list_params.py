"""The query of a list, sorts, filters and a page, and its result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict, Field
from sqlalchemy.types import TypeEngine

from app.core.db.base import BaseModel
from app.core.exceptions import InvalidInputError

MAX_PAGE = 1_000_000
MAX_PER_PAGE = 100
DEFAULT_PER_PAGE = 20

T = TypeVar("T")
R = TypeVar("R")


class SortOrder(StrEnum):
    """The two directions."""

    ASC = "asc"
    DESC = "desc"


class Lookup(StrEnum):
    """Comparisons of a filter. All but `EQ` are a suffix of the field in a query: `price__gte:10`."""

    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    ILIKE = "ilike"
    NULL = "null"


class SortParam(PydanticModel):
    """One sort. A subclass narrows `field` to the columns that may be asked for."""

    model_config = ConfigDict(frozen=True)

    field: str
    order: SortOrder = SortOrder.ASC


class FilterParam(PydanticModel):
    """One filter: equality, or one of several where `value` is a tuple. A subclass narrows `field`.

    `NE` is the opposite, so it finds NULL too. `ILIKE` is a part of the text in either case, `NULL` whether there
    is no value.
    """

    model_config = ConfigDict(frozen=True)

    field: str
    value: Any
    lookup: Lookup = Lookup.EQ


def fault(parameter: str, kind: str, message: str) -> InvalidInputError:
    """Refuse one query parameter; `message` must not repeat what was sent."""
    return InvalidInputError(errors=[{"loc": ["query", parameter], "msg": message, "type": kind}])


class ListParams(PydanticModel):
    """A list query. A subclass names the model whose columns the fields are, or leaves that to the repository.

    Sorts apply in their order, filters all together; `id` breaks ties. With a `cursor`, "" for the first page, the
    page is the one it stands for instead of number `page`, and nothing is counted.

    With `model` a field that is no column stops the start, and the API document names the lookups of each field.
    Without it, fields are checked and texts become values when a query asks for them. `virtual` gives the types of
    fields that are no column; the repository's `list_field` says what they stand for. A subclass may declare `sort`,
    `filters`, `page` and `per_page` anew, with other defaults and bounds. docs/database.md shows all of it.
    """

    model_config = ConfigDict(frozen=True)

    model: ClassVar[type[BaseModel] | None] = None
    virtual: ClassVar[Mapping[str, TypeEngine[Any]]] = MappingProxyType({})

    sort: Sequence[SortParam] | None = ()
    filters: Sequence[FilterParam] | None = ()
    page: int = Field(default=1, ge=1, le=MAX_PAGE)
    per_page: int = Field(default=DEFAULT_PER_PAGE, ge=1, le=MAX_PER_PAGE)
    cursor: str | None = None


@dataclass(frozen=True)
class Cursors:
    """The cursors of the pages around one; None where there is no row on that side."""

    next: str | None
    prev: str | None


@dataclass(frozen=True)
class PaginatedResult(Generic[T]):
    """One page of a list: the one of a number and the size of the whole, or the one of a cursor and its neighbours."""

    items: Sequence[T]
    total: int | None
    page: int | None
    per_page: int
    cursors: Cursors | None = None

    def map(self, convert: Callable[[T], R]) -> "PaginatedResult[R]":
        """Return the same page with every item converted."""
        items = [convert(item) for item in self.items]
        return PaginatedResult(items, self.total, self.page, self.per_page, self.cursors)
