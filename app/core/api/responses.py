"""The envelope of every successful answer: `{"data": ..., "meta": {...}}`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, get_args, get_origin, overload
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Request
from fastapi import Response as HttpResponse
from pydantic import BaseModel, Field

from app.core.db import PaginatedResult

MAX_LINK_SIZE = 8 * 1024
"""Proxies and clients refuse longer headers, and with them the answer; `meta` says the same."""

T = TypeVar("T")
R = TypeVar("R")


class Response(BaseModel, Generic[T]):
    """One thing: `Response(data=user)`. `meta` is absent where there is nothing to say."""

    data: T
    meta: dict[str, Any] | None = Field(default=None, exclude_if=lambda meta: meta is None)


class Pagination(BaseModel):
    """The number and size of this page, and the number of items on all of them."""

    total: int
    page: int
    per_page: int


class CursorPagination(BaseModel):
    """The cursors of the next page and of the one before; null where there is no further row on that side."""

    per_page: int
    next_cursor: str | None
    prev_cursor: str | None


class PageMeta(BaseModel):
    """The page of a list, by number or by cursor."""

    pagination: Pagination | CursorPagination


class PaginatedResponse(BaseModel, Generic[T]):
    """One page of a list of T; `PaginatedResponse[list[T]]` is the same."""

    data: list[T]
    meta: PageMeta

    if not TYPE_CHECKING:

        def __class_getitem__(cls, item: Any) -> Any:
            return super().__class_getitem__(get_args(item)[0] if get_origin(item) is list else item)

    @overload
    @classmethod
    def of(cls, result: PaginatedResult[T], request: Request, response: HttpResponse) -> Self: ...

    @overload
    @classmethod
    def of(
        cls: "type[PaginatedResponse[Any]]", result: PaginatedResult[R], request: Request, response: HttpResponse
    ) -> "PaginatedResponse[list[R]]": ...

    @classmethod
    def of(cls, result: PaginatedResult[Any], request: Request, response: HttpResponse) -> Any:
        """Answer with `result`; sets `Link` (RFC 8288) on `response`, and `X-Total-Count` where it was counted.

        There is no `Link` where it would be too long.
        """
        pagination: Pagination | CursorPagination
        if result.cursors is not None:
            ahead, back = result.cursors.next, result.cursors.prev
            links = _links(request, "cursor", {"first": "", "next": ahead, "prev": back})
            pagination = CursorPagination(per_page=result.per_page, next_cursor=ahead, prev_cursor=back)
        else:
            total, page = result.total or 0, result.page or 1
            last = max(1, -(-total // result.per_page))
            before, after = min(page - 1, last) or None, page + 1 if page < last else None
            links = _links(request, "page", {"first": 1, "last": last, "next": after, "prev": before})
            pagination = Pagination(total=total, page=page, per_page=result.per_page)
            response.headers["X-Total-Count"] = str(total)
        if len(links) <= MAX_LINK_SIZE:
            response.headers["Link"] = links
        return cls(data=list(result.items), meta=PageMeta(pagination=pagination))


def _links(request: Request, parameter: str, values: Mapping[str, str | int | None]) -> str:
    """The `Link` header: the request's own path and query, never its Host, with other values of `parameter`."""
    path = quote(request.url.path)
    query = [pair for pair in parse_qsl(request.url.query, keep_blank_values=True) if pair[0] != parameter]
    return ", ".join(
        f'<{path}?{urlencode([*query, (parameter, value)])}>; rel="{rel}"'
        for rel, value in values.items()
        if value is not None
    )
