"""Results of cached functions: as JSON and back, and over HTTP with validators and freshness (RFC 9110, RFC 9111)."""

import functools
import hashlib
import inspect
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any, NamedTuple, get_type_hints

from fastapi import Depends, Response, params
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.requests import HTTPConnection
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import PydanticSerializationError, to_json

from app.core.identity import credential_headers, principal_of
from app.core.services.cache.interface import NotKept
from app.core.services.secret_types import is_secret

PARAMETER = "_cached_request"
"""The parameter through which a path operation is given its CachedRequest."""

INDEPENDENT = "__kit_independent_of_request__"
"""Marks a dependency that reads nothing of a request that a result could depend on."""

_TRAITS = "_kit_cache_traits"
_TAGS = re.compile(r'"([\x21\x23-\x7e\x80-\xff]*)"')

_HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
_HeaderValue = Annotated[str, Field(pattern=r"^[\t\x20-\x7e\x80-\xff]*$")]


MASKED = b'"**********"'
"""A secret in JSON, and any text that looks like one."""

_Compute = Callable[[], Awaitable[Any]]


class Codec:
    """Turns a function's result into JSON and back, by its return annotation."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._failure = f"@cached cannot keep what {function.__module__}.{function.__qualname__}"

    @functools.cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        # Built on first use: the annotation may name what is defined after the function.
        annotation = get_type_hints(self._function, include_extras=True).get("return", Any)
        try:
            return TypeAdapter(annotation)
        except PydanticSchemaGenerationError as exc:
            raise TypeError(f"{self._failure} returns: {annotation!r}") from exc

    def dump(self, value: Any) -> Any:
        adapter = self._adapter
        try:
            # From attributes: an ORM object becomes the schema the annotation names.
            checked = adapter.validate_python(value, from_attributes=True)
            dumped = adapter.dump_python(checked, mode="json", by_alias=False, round_trip=True)
        except (ValidationError, PydanticSerializationError) as exc:
            raise TypeError(f"{self._failure} returned: {type(exc).__name__}") from exc
        if MASKED in to_json(dumped) and is_secret(adapter.dump_python(checked)):
            raise TypeError(f"{self._failure} returned: it holds a secret")
        return dumped

    def load(self, value: Any) -> Any:
        return self._adapter.validate_python(value, by_alias=True, by_name=True)


class CachedResponse(BaseModel):
    """A stored result, the headers that the operation set itself, and the end of its freshness."""

    value: Any
    headers: list[tuple[_HeaderName, _HeaderValue]]
    etag: str = Field(pattern=r'^W/"[0-9a-f]{32}"$')
    until: float | None = Field(allow_inf_nan=False)


class RouteTraits(NamedTuple):
    """Headers that carry credentials, other headers that a route declares, and arguments that no request reaches."""

    credentials: list[str]
    headers: list[str]
    constants: frozenset[str]

    @classmethod
    def of(cls, dependant: Dependant) -> "RouteTraits":
        fields = [field for field in get_flat_params(dependant) if isinstance(field.field_info, params.Header)]
        return cls(
            credentials=["Authorization", "Cookie", *credential_headers(), *key_headers(dependant)],
            headers=[field.alias for field in fields if field.alias != "authorization"],
            constants=frozenset(each.name for each in dependant.dependencies if each.name and _is_constant(each)),
        )


class CachedRequest:
    """A request to a `@cached` path operation, and the headers of its response."""

    def __init__(self, request: HTTPConnection, response: Response) -> None:
        self.request = request
        self.response = response
        self.is_safe = request.scope.get("method") in ("GET", "HEAD")

    @property
    def traits(self) -> RouteTraits:
        """Traits of the route, kept on it: finding them out costs more than the rest of a hit."""
        scope = self.request.scope
        # The dependencies of `include_router` are in FastAPI's context of the route, not in the route.
        route = scope.get("fastapi", {}).get("effective_route_context") or scope["route"]
        traits: RouteTraits | None = getattr(route, _TRAITS, None)
        if traits is None:
            traits = RouteTraits.of(getattr(route, "dependant", None) or Dependant())
            setattr(route, _TRAITS, traits)
        return traits

    def is_answered_by(self, function: Callable[..., Any]) -> bool:
        """Tell whether `function` is the path operation, and not one of its dependencies."""
        return inspect.unwrap(self.request.scope["endpoint"], stop=lambda found: found is function) is function

    async def compute(self, operation: _Compute, codec: Codec, ttl: float | None) -> CachedResponse | NotKept:
        """Call the operation and return what is stored of it."""
        before = list(self.response.raw_headers)
        result = await operation()
        if not isinstance(result, Response):
            value = codec.dump(result)
            if stored := self._to_store(value, before, ttl):
                return stored
            result = codec.load(value)
        return NotKept(NotKept(result))  # the cache takes the outer one off; `load` knows it by the inner one

    def load(self, stored: Any, codec: Codec, *, replay: bool) -> Any:
        """Return the result, or the 304 in its place; ValidationError if it was not stored by this code.

        `replay` sets the stored headers, unless the operation has just set them itself.
        """
        if isinstance(stored, NotKept):
            return stored.value
        response = CachedResponse.model_validate(stored)
        value = codec.load(response.value)
        return self._not_modified(response, replay) or value

    def _to_store(self, value: Any, before: list[tuple[bytes, bytes]], ttl: float | None) -> CachedResponse | None:
        """None if the response must not be stored. `before` are the headers before the operation."""
        now = self.response.raw_headers
        touched = {header[0] for header in now if header not in before}
        own = [(name.decode("latin-1"), text.decode("latin-1")) for name, text in now if name in touched]
        no_store = "no-store" in self.response.headers.get("cache-control", "").lower()
        if b"set-cookie" in touched or no_store or self.response.status_code not in (None, 200):
            return None
        # Weak, as the response may leave compressed or not; that is how If-None-Match compares anyway.
        etag = f'W/"{hashlib.blake2b(to_json([value, own]), digest_size=16).hexdigest()}"'
        return CachedResponse(value=value, headers=own, etag=etag, until=None if ttl is None else time.time() + ttl)

    def _not_modified(self, stored: CachedResponse, replay: bool) -> Response | None:
        """Complete the headers; return the 304 if the client has this response already."""
        headers, traits = self.response.headers, self.traits
        if replay:
            for name in {name for name, _ in stored.headers} & set(headers):
                del headers[name]  # set by a dependency, and replaced or extended by the operation
            for name, text in stored.headers:
                headers.append(name, text)
        headers.setdefault("ETag", stored.etag)
        headers.setdefault("Cache-Control", self._cache_control(stored))
        headers["Vary"] = ", ".join(dict.fromkeys([*headers.getlist("vary"), *traits.credentials, *traits.headers]))
        if not _matches(self.request.headers.getlist("if-none-match"), headers["ETag"]):
            return None
        unchanged = Response(status_code=304)
        unchanged.raw_headers.extend(self.response.raw_headers)
        unchanged.headers.add_vary_header("Accept-Encoding")  # as the compressing middleware adds to a full response
        return unchanged

    def _cache_control(self, stored: CachedResponse) -> str:
        has_credentials = any(name in self.request.headers for name in self.traits.credentials)
        personal = principal_of(self.request) or has_credentials or "set-cookie" in self.response.headers
        age = "no-cache" if stored.until is None else f"max-age={max(0, int(stored.until - time.time()))}"
        return f"{'private' if personal else 'public'}, {age}"


def _is_constant(dependant: Dependant) -> bool:
    """Tell whether nothing of a request reaches this dependency, by itself or through its own dependencies."""
    if getattr(dependant.call, INDEPENDENT, False):
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
    """Yield the headers in which a route takes API keys."""
    if isinstance(dependant.call, APIKeyHeader):
        yield dependant.call.model.name
    for dependency in dependant.dependencies:
        yield from key_headers(dependency)


async def _cached_request(request: HTTPConnection, response: Response) -> CachedRequest:
    return CachedRequest(request, response)


def with_request(signature: inspect.Signature) -> inspect.Signature:
    """Add a parameter that FastAPI fills with the CachedRequest, and that shows in no document."""
    added = inspect.Parameter(PARAMETER, inspect.Parameter.KEYWORD_ONLY, default=Depends(_cached_request))
    parameters = sorted([*signature.parameters.values(), added], key=lambda parameter: parameter.kind)
    return signature.replace(parameters=parameters)


def _matches(if_none_match: list[str], etag: str) -> bool:
    """Tell whether the client has what `etag` names, by weak comparison (RFC 9110 8.8.3.2)."""
    given = ",".join(if_none_match)
    return given.strip() == "*" or not set(_TAGS.findall(given)).isdisjoint(_TAGS.findall(etag))
