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


def _is_none(value: Any) -> bool:
    return value is None


class Response(BaseModel, Generic[T]):
    """One thing: `Response(data=user)`. `meta` is absent where there is nothing to say."""

    data: T
    meta: dict[str, Any] | None = Field(default=None, exclude_if=_is_none)


class Pagination(BaseModel):
    """Which page this is, and how many items there are on all of them."""

    total: int
    page: int
    per_page: int


class CursorPagination(BaseModel):
    """Where the walk goes on; null where there is no further row on that side."""

    per_page: int
    next_cursor: str | None
    prev_cursor: str | None


class PageMeta(BaseModel):
    """What a list says about itself: the page of a number, or that of a cursor."""

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
        """The answer for `result`; sets `Link` (RFC 8288) on `response`, and `X-Total-Count` where it was counted.

        There is no `Link` where it would be too long.
        """
        pagination: Pagination | CursorPagination
        if result.cursors is not None:
            ahead, back = result.cursors.next, result.cursors.prev
            links = cursor_links(request, ahead, back)
            pagination = CursorPagination(per_page=result.per_page, next_cursor=ahead, prev_cursor=back)
        else:
            total, page = result.total or 0, result.page or 1
            links = page_links(request, page, last=max(1, -(-total // result.per_page)))
            pagination = Pagination(total=total, page=page, per_page=result.per_page)
            response.headers["X-Total-Count"] = str(total)
        if len(links) <= MAX_LINK_SIZE:
            response.headers["Link"] = links
        return cls(data=list(result.items), meta=PageMeta(pagination=pagination))


def page_links(request: Request, page: int, last: int) -> str:
    """The `Link` header of a page: the request's own path and query with another `page`, never its Host."""
    pages = {"first": 1, "last": last}
    if page > 1:
        pages["prev"] = min(page - 1, last)
    if page < last:
        pages["next"] = page + 1
    return _links(request, "page", pages)


def cursor_links(request: Request, ahead: str | None, back: str | None) -> str:
    """The `Link` header of a page of a walk: the same with another `cursor`."""
    cursors = {"first": "", "next": ahead, "prev": back}
    return _links(request, "cursor", {rel: cursor for rel, cursor in cursors.items() if cursor is not None})


def _links(request: Request, parameter: str, values: Mapping[str, str | int]) -> str:
    path = quote(request.url.path)
    query = [pair for pair in parse_qsl(request.url.query, keep_blank_values=True) if pair[0] != parameter]
    return ", ".join(
        f'<{path}?{urlencode([*query, (parameter, value)])}>; rel="{rel}"' for rel, value in sorted(values.items())
    )
