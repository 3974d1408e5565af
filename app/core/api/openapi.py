"""The OpenAPI document: stable operation ids, every error answer as a problem, and names of schemas by module."""

import http.client
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import NoneType, UnionType
from typing import Any, ClassVar, Union, get_args, get_origin

from fastapi import FastAPI
from fastapi._compat import v2 as fastapi_schemas
from fastapi.routing import APIRoute
from pydantic.json_schema import CoreModeRef, DefsRef, JsonSchemaMode, models_json_schema
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core import exceptions as kinds
from app.core.api.limiter import ConfigurableRateLimiter
from app.core.api.problems import MEDIA_TYPE, InputProblem, Problem, title_of
from app.core.api.routes import ListedRoute, listed_routes
from app.core.deps import current_principal, db_session, optional_principal
from app.core.exceptions import ConfigError
from app.core.identity import Authenticator, Permission
from app.core.services.cache.results import PARAMETER

_REF = "#/components/{kind}/{name}"
_WRITES = ("post", "put", "patch", "delete")
_DOCUMENTED: Mapping[int, type[kinds.AppError]] = {
    401: kinds.AuthenticationError,
    403: kinds.PermissionDeniedError,
    404: kinds.NotFoundError,
    409: kinds.ConflictError,
    422: kinds.InvalidInputError,
    429: kinds.RateLimitedError,
    503: kinds.UnavailableError,
}
_FAULT = {"loc": ["body", "name"], "msg": "Field required", "type": "missing"}

DESCRIPTION = """\
A success is `{"data": ..., "meta": {...}}`; `meta` is left out where there is nothing to say. Lists take `sort`,
`filters`, and `page` or `cursor`.

Every error is `application/problem+json` (RFC 9457): `code` is for programs and does not change, `detail` is for
people, `request_id` finds the line in the log. A 422 lists every fault in `errors`.
"""


def operation_id(route: APIRoute) -> str:
    """`<tag>_<function>`: does not change with the path, and reads well in a generated client."""
    return f"{route.tags[0]}_{route.name}" if route.tags else route.name


def operation_id_v2(route: APIRoute) -> str:
    """The same for the second version of the API, where functions may be called as in the first."""
    return f"{operation_id(route)}_v2"


class DocumentedAPI(FastAPI):
    """FastAPI whose document shows the error answers this service really gives."""

    modules: Mapping[str, str] = {}
    """The import names of the modules and their short names, which the names of their schemas begin with."""

    authenticators: Sequence[Authenticator] = ()
    permissions: Mapping[str, Permission] = {}
    """The declared permissions by name: the scopes of OAuth2."""

    base_path = ""
    """The path of the service behind its proxy, as `/svc`, whether the proxy strips it or not."""

    _finished: dict[str, Any] | None = None

    def build_middleware_stack(self) -> ASGIApp:
        """Build the stack; below `base_path` where there is one."""
        stack = super().build_middleware_stack()
        return _below(self.base_path, stack) if self.base_path else stack

    def openapi(self) -> dict[str, Any]:
        """Return the document; FastAPI makes it anew when routes were added."""
        with named_by_module(self.modules):
            document = super().openapi()
        if document is not self._finished:
            self._finished = document
            _document_problems(document.setdefault("components", {}))
            self._document_schemes(document["components"])
            for route in listed_routes(self.routes):
                operations = document.get("paths", {}).get(route.context.path_format, {})
                for method in operations.keys() & {method.lower() for method in route.methods}:
                    if security := self._security(route):
                        operations[method]["security"] = security
                    _document_operation(method, operations[method], route)
        return document

    def _document_schemes(self, components: dict[str, Any]) -> None:
        schemes = components.setdefault("securitySchemes", {})
        for one in self.authenticators:
            scheme = one.scheme.model.model_dump(mode="json", by_alias=True, exclude_none=True)
            for flow in scheme.get("flows", {}).values():
                flow["scopes"] = {permission.name: permission.text for permission in self.permissions.values()}
            schemes[one.name] = scheme

    def _security(self, route: ListedRoute) -> list[dict[str, list[str]]]:
        """Return the credentials of which the route takes any one, none at all where they are optional."""
        if optional_principal not in route.calls:
            return []
        scopes = [name for name in route.access if name in self.permissions]
        either = [{one.name: scopes} for one in self.authenticators]
        return either if current_principal in route.calls else [*either, {}]


def _below(root_path: str, app: ASGIApp) -> ASGIApp:
    """Complete the path of each request for `app`: ASGI has it with the root path."""

    async def complete(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            path, scope["root_path"] = scope["path"], root_path
            if path != root_path and not path.startswith(f"{root_path}/"):
                scope["path"] = root_path + path
                if raw_path := scope.get("raw_path"):
                    scope["raw_path"] = root_path.encode() + raw_path
        await app(scope, receive, send)

    return complete


def _document_problems(components: dict[str, Any]) -> None:
    schemas = components.setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    _, definitions = models_json_schema(
        [(Problem, "serialization"), (InputProblem, "serialization")],
        ref_template=_REF.format(kind="schemas", name="{model}"),
    )
    schemas |= definitions["$defs"]
    components["responses"] = {"Problem": _answer("Any other error", "Problem", 503, kinds.UnavailableError)} | {
        f"Problem{status}": _answer(title_of(status), "InputProblem" if status == 422 else "Problem", status, kind)
        for status, kind in _DOCUMENTED.items()
    }


def _document_operation(method: str, operation: dict[str, Any], route: ListedRoute) -> None:
    """Add the errors that the operation may answer; what the route itself says of one (more than `{}`) stays."""
    answers = operation["responses"]
    for status in _DOCUMENTED:
        answer = answers.get(str(status))
        if "HTTPValidationError" in str(answer) or answer == {"description": http.client.responses[status]}:
            answers[str(status)] = _reference(status)  # FastAPI's own words
    possible = {
        401: "security" in operation,
        403: "security" in operation,
        404: "{" in route.path,
        409: method in _WRITES,
        422: "422" in answers,
        429: any(isinstance(call, ConfigurableRateLimiter) for call in route.calls),
        503: db_session in route.calls,
    }
    for status, is_possible in possible.items():
        if is_possible:
            answers.setdefault(str(status), _reference(status))
    answers.setdefault("default", _reference(""))
    operation.setdefault("description", f"{operation['summary']}.")
    is_cached = route.dependant is not None and any(one.name == PARAMETER for one in route.dependant.dependencies)
    if is_cached and method in ("get", "head"):
        answers["304"] = {"description": "What `If-None-Match` names has not changed"}


def _reference(status: int | str) -> dict[str, Any]:
    return {"$ref": _REF.format(kind="responses", name=f"Problem{status}")}


def _answer(description: str, schema: str, status: int, kind: type[kinds.AppError]) -> dict[str, Any]:
    example: dict[str, Any] = {
        "type": f"urn:problem-type:{kind.code}",
        "title": title_of(status),
        "status": status,
        "detail": kind.default_detail,
        "instance": "/path/of/the/request",
        "code": kind.code,
        "request_id": "3f0c2a9d5b7e4c18a6d2f49b1e7c8053",
    }
    if schema == "InputProblem":
        example["errors"] = [_FAULT]
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(kind="schemas", name=schema)}, "example": example}}
    return {"description": description, "content": content}


@contextmanager
def named_by_module(modules: Mapping[str, str]) -> Iterator[None]:
    """Have FastAPI name the schemas of the block: `ShopOrder`, and `ResponseOfShopOrder` for `Response[Order]`.

    `modules` maps the import name of a module to its short name; what belongs to none has its own name alone.
    ConfigError where two schemas would have one name.
    """
    previous = fastapi_schemas.GenerateJsonSchema
    # FastAPI has no way to pass the generator, whose names pydantic means to be overridden.
    fastapi_schemas.GenerateJsonSchema = type("ModuleNames", (_Named,), {"modules": modules})  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        fastapi_schemas.GenerateJsonSchema = previous  # type: ignore[misc]


class _Named(fastapi_schemas.GenerateJsonSchema):
    modules: ClassVar[Mapping[str, str]]

    def generate_definitions(
        self, inputs: Sequence[tuple[Any, JsonSchemaMode, Any]]
    ) -> tuple[dict[tuple[Any, JsonSchemaMode], dict[str, Any]], dict[DefsRef, dict[str, Any]]]:
        self._types: dict[str, type] = {}
        self._taken: dict[str, str] = {}
        for ref, kind in _classes([schema for _, _, schema in inputs]):
            self._types.setdefault(ref, kind)
        mapping, definitions = super().generate_definitions(inputs)
        for name, definition in definitions.items():
            named = self._types.get(self._taken.get(name, ""))
            if named is not None and definition.get("title") == named.__name__:
                definition["title"] = name  # which some generators name their types after
        return mapping, definitions

    def get_defs_ref(self, core_mode_ref: CoreModeRef) -> DefsRef:
        unique = super().get_defs_ref(core_mode_ref)
        ref, mode = core_mode_ref
        name = self._name_of(self._types[ref]) if ref in self._types else self._name_in(*_split(ref))
        if (other := self._taken.setdefault(name, ref)) != ref:
            both = " and ".join(sorted(re.sub(r":\d+", "", one) for one in (ref, other)))
            raise ConfigError(f"{both} would both be published as {name}: rename one of them")
        side = "Input" if mode == "validation" else "Output"
        self._prioritized_defsref_choices[unique] = [DefsRef(name), DefsRef(f"{name}-{side}"), unique]
        return unique

    def _name_of(self, kind: Any) -> str:
        """Name a class, and what is made of classes: `ListOfShopOrder`, `ShopOrderOrShopCart`."""
        generic = getattr(kind, "__pydantic_generic_metadata__", None) or {}
        origin, arguments = generic.get("origin") or get_origin(kind), generic.get("args") or get_args(kind)
        if arguments:
            names = map(self._name_of, arguments)
            return "Or".join(names) if origin in (Union, UnionType) else f"{self._name_of(origin)}Of{'And'.join(names)}"
        if kind is None or kind is NoneType:
            return "None"
        return self._name_in(kind.__module__, kind.__name__) if isinstance(kind, type) else _pascal(str(kind))

    def _name_in(self, module: str, name: str) -> str:
        name = _pascal(name) if module == "builtins" else re.sub(r"\W+", "_", name)
        owners = [one for one in self.modules if f"{module}.".startswith(f"{one}.")]
        prefix = _pascal(self.modules[max(owners, key=len)]) if owners else ""
        return name if name.startswith(prefix) else prefix + name


def _classes(schema: Any, ref: str = "") -> Iterator[tuple[str, type]]:
    """The class behind each reference: that of a generic one names no modules. Validators may stand around it."""
    if isinstance(schema, dict):
        ref = schema.get("ref", ref)
        if ref and isinstance(kind := schema.get("cls"), type):
            yield ref, kind
            ref = ""
        schema = list(schema.values())
    for part in schema if isinstance(schema, list | tuple) else ():
        yield from _classes(part, ref)


def _split(ref: str) -> tuple[str, str]:
    """Module and name of `app.shop.schemas.Order:94332893804368`."""
    module, _, name = re.sub(r":\d+", "", ref).rpartition(".")
    return module, name


def _pascal(text: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in re.findall(r"[^\W_]+", text))
