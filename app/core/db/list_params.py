"""What a list can be asked for: sorts, filters and a page; and its answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict, Field

from app.core.db.base import BaseModel

MAX_PAGE = 1_000_000
MAX_PER_PAGE = 100
DEFAULT_PER_PAGE = 20

T = TypeVar("T")
R = TypeVar("R")


class SortOrder(StrEnum):
    """The two directions."""

    ASC = "asc"
    DESC = "desc"


class SortParam(PydanticModel):
    """One sort. A subclass narrows `field` to the columns that may be asked for."""

    model_config = ConfigDict(frozen=True)

    field: str
    order: SortOrder = SortOrder.ASC


class FilterParam(PydanticModel):
    """One filter: equality, or one of several where `value` is a tuple. A subclass narrows `field`."""

    model_config = ConfigDict(frozen=True)

    field: str
    value: Any


class ListParams(PydanticModel):
    """A list query. A subclass names the model whose columns the fields are:

        class UserSortParam(SortParam):
            field: Literal["id", "username", "created_at"]

        class UserFilterParam(FilterParam):
            field: Literal["id", "username"]

        class UserListParams(ListParams):
            model = User

        list_params = ListParamsBuilder(UserListParams, UserSortParam, UserFilterParam)

        @router.get("/users")
        async def list_users(params: Annotated[UserListParams, Depends(list_params)], ...): ...

    Sorts apply in their order, filters all together; `id` breaks ties.
    """

    model_config = ConfigDict(frozen=True)

    model: ClassVar[type[BaseModel]]

    sort: tuple[SortParam, ...] = ()
    filters: tuple[FilterParam, ...] = ()
    page: int = Field(default=1, ge=1, le=MAX_PAGE)
    per_page: int = Field(default=DEFAULT_PER_PAGE, ge=1, le=MAX_PER_PAGE)


@dataclass(frozen=True)
class PaginatedResult(Generic[T]):
    """One page of a list and the size of the whole."""

    items: Sequence[T]
    total: int
    page: int
    per_page: int

    def map(self, convert: Callable[[T], R]) -> "PaginatedResult[R]":
        """The same page with every item converted."""
        return PaginatedResult([convert(item) for item in self.items], self.total, self.page, self.per_page)
