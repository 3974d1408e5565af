"""What `@cached` says over HTTP: validators, how long an answer is fresh, and for whom (RFC 9110, RFC 9111)."""

import hashlib
import inspect
import re
import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Response, params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.requests import HTTPConnection
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, Field
from pydantic_core import to_json

from app.core.identity import principal_of

EXCHANGE = "_cached_exchange"
"""The parameter through which a path operation is given its exchange."""

SAME_FOR_ALL = "__kit_same_for_all__"
"""Marks a dependency that reads nothing of a request that an answer could depend on."""

_TAGS = re.compile(r'"([\x21\x23-\x7e\x80-\xff]*)"')

_HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
_HeaderValue = Annotated[str, Field(pattern=r"^[\t\x20-\x7e\x80-\xff]*$")]


class Answer(BaseModel):
    """What is kept of an answer: the value, the headers the operation set itself, and until when it is fresh."""

    value: Any
    headers: list[tuple[_HeaderName, _HeaderValue]]
    etag: str = Field(pattern=r'^W/"[0-9a-f]{32}"$')
    until: float | None = Field(allow_inf_nan=False)


class Exchange:
    """The request that is answered, and the headers of its answer."""

    def __init__(self, request: HTTPConnection, response: Response) -> None:
        self.request = request
        self.response = response

    @property
    def is_safe(self) -> bool:
        """Whether asking has no effect: the answer may be one that was given before."""
        return self.request.scope.get("method") in ("GET", "HEAD")

    @property
    def caller(self) -> str | None:
        """Who a dependency has proven to be asking."""
        return principal_of(self.request)

    @property
    def constants(self) -> frozenset[str]:
        """The arguments that are made without a look at the request, by themselves and by what they depend on."""
        return self._declared.constants

    @property
    def _declared(self) -> "_Declared":
        scope = self.request.scope
        # The dependencies of `include_router` are in FastAPI's context of the route, not in the route.
        return _declared_by(scope.get("fastapi", {}).get("effective_route_context") or scope.get("route"))

    def is_answered_by(self, function: Callable[..., Any]) -> bool:
        """Whether `function` is the path operation, and not one of its dependencies."""
        return inspect.unwrap(self.request.scope["endpoint"], stop=lambda found: found is function) is function

    def kept(self, value: Any, before: list[tuple[bytes, bytes]], ttl: float | None) -> Answer | None:
        """The answer as it is to be kept; None where it must not be."""
        now = self.response.raw_headers
        touched = {header[0] for header in now if header not in before}
        own = [(name.decode("latin-1"), text.decode("latin-1")) for name, text in now if name in touched]
        no_store = "no-store" in self.response.headers.get("cache-control", "").lower()
        if b"set-cookie" in touched or no_store or self.response.status_code not in (None, 200):
            return None
        # Weak, as the answer may leave compressed or not; that is how If-None-Match compares anyway.
        etag = f'W/"{hashlib.blake2b(to_json([value, own]), digest_size=16).hexdigest()}"'
        return Answer(value=value, headers=own, etag=etag, until=None if ttl is None else time.time() + ttl)

    def not_modified(self, answer: Answer, *, replay: bool) -> Response | None:
        """Complete the headers; the 304 where the client has this answer already."""
        headers = self.response.headers
        if replay:
            for name in {name for name, _ in answer.headers} & set(headers):
                del headers[name]  # what a dependency has set, and the operation has replaced or added to
            for name, text in answer.headers:
                headers.append(name, text)
        headers.setdefault("ETag", answer.etag)
        headers.setdefault("Cache-Control", self._freshness(answer))
        headers["Vary"] = ", ".join(
            dict.fromkeys([*headers.getlist("vary"), *self._declared.credentials, *self._declared.headers])
        )
        if not _names(self.request.headers.getlist("if-none-match"), headers["ETag"]):
            return None
        unchanged = Response(status_code=304)
        unchanged.raw_headers.extend(self.response.raw_headers)
        unchanged.headers.add_vary_header("Accept-Encoding")  # as what compresses adds to the answer itself
        return unchanged

    def _freshness(self, answer: Answer) -> str:
        known = any(name in self.request.headers for name in self._declared.credentials)
        personal = self.caller or known or "set-cookie" in self.response.headers
        age = "no-cache" if answer.until is None else f"max-age={max(0, int(answer.until - time.time()))}"
        return f"{'private' if personal else 'public'}, {age}"


class _Declared(NamedTuple):
    """What a route says an answer may depend on: headers that tell who asks, other headers; and what it cannot."""

    credentials: list[str]
    headers: list[str]
    constants: frozenset[str]


_known: dict[int, tuple[Any, _Declared]] = {}


def _declared_by(route: Any) -> _Declared:
    known, declared = _known.get(id(route), (None, None))
    if declared is None or known is not route:  # a route cannot be hashed, and the walk costs more than the rest
        dependant = getattr(route, "dependant", None) or Dependant()
        fields = [field for field in get_flat_params(dependant) if isinstance(field.field_info, params.Header)]
        declared = _Declared(
            credentials=["Authorization", "Cookie", *key_headers(dependant)],
            headers=[field.alias for field in fields if field.alias != "authorization"],
            constants=frozenset(each.name for each in dependant.dependencies if each.name and _is_constant(each)),
        )
        _known[id(route)] = route, declared
    return declared


def _is_constant(dependant: Dependant) -> bool:
    """Whether nothing of a request reaches this dependency, by itself or through what it depends on."""
    if getattr(dependant.call, SAME_FOR_ALL, False):
        return True
    read = (
        *get_flat_params(dependant),
        *dependant.body_params,
        dependant.request_param_name,
        dependant.websocket_param_name,
        dependant.http_connection_param_name,
        dependant.security_scopes_param_name,
    )
    return not any(read) and all(map(_is_constant, dependant.dependencies))


def key_headers(dependant: Dependant) -> Iterator[str]:
    """The headers in which a route takes API keys."""
    if isinstance(dependant.call, APIKeyHeader):
        yield dependant.call.model.name
    for dependency in dependant.dependencies:
        yield from key_headers(dependency)


async def _exchange(request: HTTPConnection, response: Response) -> Exchange:
    return Exchange(request, response)


def with_exchange(signature: inspect.Signature) -> inspect.Signature:
    """The signature with a parameter that FastAPI fills, and that shows in no document."""
    parameters = list(signature.parameters.values())
    end = len(parameters) - any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    depends = Depends(_exchange)
    parameters.insert(end, inspect.Parameter(EXCHANGE, inspect.Parameter.KEYWORD_ONLY, default=depends))
    return signature.replace(parameters=parameters)


def _names(if_none_match: list[str], etag: str) -> bool:
    """Whether the client has what `etag` names, by weak comparison (RFC 9110 8.8.3.2)."""
    given = ",".join(if_none_match)
    return given.strip() == "*" or not set(_TAGS.findall(given)).isdisjoint(_TAGS.findall(etag))
