"""The envelope of every successful answer: `{"data": ..., "meta": {...}}`."""

from typing import Any, Generic, Self, TypeVar
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Request
from fastapi import Response as HttpResponse
from pydantic import BaseModel, Field

from app.core.db import PaginatedResult

T = TypeVar("T")


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


class PageMeta(BaseModel):
    """What a list says about itself."""

    pagination: Pagination


class PaginatedResponse(BaseModel, Generic[T]):
    """One page of a list."""

    data: list[T]
    meta: PageMeta

    @classmethod
    def of(cls, result: PaginatedResult[T], request: Request, response: HttpResponse) -> Self:
        """The answer for `result`; sets `X-Total-Count` and `Link` (RFC 8288) on `response`."""
        response.headers["X-Total-Count"] = str(result.total)
        response.headers["Link"] = page_links(request, result.page, last=max(1, -(-result.total // result.per_page)))
        pagination = Pagination(total=result.total, page=result.page, per_page=result.per_page)
        return cls(data=list(result.items), meta=PageMeta(pagination=pagination))


def page_links(request: Request, page: int, last: int) -> str:
    """The `Link` header of a page: the request's own path and query with another `page`, never its Host."""
    pages = {"first": 1, "last": last}
    if page > 1:
        pages["prev"] = min(page - 1, last)
    if page < last:
        pages["next"] = page + 1
    path = quote(request.url.path)
    query = [pair for pair in parse_qsl(request.url.query, keep_blank_values=True) if pair[0] != "page"]
    return ", ".join(
        f'<{path}?{urlencode([*query, ("page", number)])}>; rel="{rel}"' for rel, number in sorted(pages.items())
    )
