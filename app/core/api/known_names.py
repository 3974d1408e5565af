"""The names of fields an operation declares: an error shows these, and no text of the caller's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from fastapi.dependencies.models import Dependant
from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from starlette.types import Scope

from app.core.api.routes import route_of

_known: WeakKeyDictionary[Any, frozenset[str]] = WeakKeyDictionary()


def with_known_names(scope: Scope, fault: Mapping[str, Any]) -> dict[str, Any]:
    """The fault, `?` in its place for each name that the operation does not declare."""
    part, *names = fault["loc"]
    known = _names_of(scope)
    return {**fault, "loc": [part, *(name if isinstance(name, int) or name in known else "?" for name in names)]}


def _names_of(scope: Scope) -> frozenset[str]:
    route = route_of(scope)
    dependant: Dependant | None = getattr(route, "dependant", None)
    if route is None or dependant is None:
        return frozenset()
    if dependant.call not in _known:
        documented = _in_schema(getattr(route, "openapi_extra", None))  # what the operation reads for itself
        _known[dependant.call] = frozenset((*_declared(dependant), *documented))
    return _known[dependant.call]


def _declared(dependant: Dependant) -> Iterator[str]:
    inputs = (dependant.path_params, dependant.query_params, dependant.header_params, dependant.cookie_params)
    for field in [field for fields in (*inputs, dependant.body_params) for field in fields]:
        yield field.alias
        yield from _in_schema(_schema_of(field.field_info.annotation))
    for dependency in dependant.dependencies:
        yield from _declared(dependency)


def _schema_of(annotation: Any) -> Any:
    try:
        return TypeAdapter(annotation).json_schema()
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):
        return None  # a type of its own, without fields


def _in_schema(schema: Any) -> Iterator[str]:
    """The names of fields, of models, and of the alternatives of a union."""
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in ("properties", "$defs", "mapping"):
                yield from value
            yield from _in_schema(value)
    elif isinstance(schema, Sequence) and not isinstance(schema, str):
        for value in schema:
            yield from _in_schema(value)
