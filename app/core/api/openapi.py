"""The OpenAPI document: stable operation ids, and every error answer as the problem it is."""

import http.client
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema
from starlette.types import Receive, Scope, Send

from app.core import exceptions as kinds
from app.core.api.limiter import ConfigurableRateLimiter
from app.core.api.problems import MEDIA_TYPE, InputProblem, Problem, title_of
from app.core.api.routes import ListedRoute, listed_routes
from app.core.api.schema_names import named_by_module
from app.core.deps import db_session
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

    base_path = ""
    """The path of the service behind its proxy, as `/svc`, whether the proxy strips it or not."""

    _finished: dict[str, Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.base_path and scope["type"] in ("http", "websocket"):
            _put_below(self.base_path, scope)
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The document; FastAPI makes it anew when routes were added."""
        with named_by_module(self.modules):
            document = super().openapi()
        if document is not self._finished:
            self._finished = document
            limited, stored = set(_operations(self, _is_limited)), set(_operations(self, _needs_database))
            _document_errors(document, limited, stored)
            _document_unchanged(document, _operations(self, _is_cached))
        return document


def placed_at(document: dict[str, Any], root_path: str) -> dict[str, Any]:
    """The document as it is true below `root_path`.

    The addresses of log-ins are completed too: as paths they would be read from the top of the host (RFC 3986 5.2).
    """
    if not root_path:
        return document
    document = {**document, "servers": [{"url": root_path}], "components": deepcopy(document.get("components", {}))}
    for scheme in document["components"].get("securitySchemes", {}).values():
        for flow in scheme.get("flows", {}).values():
            for key in ("tokenUrl", "refreshUrl", "authorizationUrl"):
                if flow.get(key, "").startswith("/"):
                    flow[key] = root_path + flow[key]
    return document


def _put_below(root_path: str, scope: Scope) -> None:
    """Complete the path: ASGI has it with the root path."""
    path, scope["root_path"] = scope["path"], root_path
    if path != root_path and not path.startswith(f"{root_path}/"):
        scope["path"] = root_path + path
        if raw_path := scope.get("raw_path"):
            scope["raw_path"] = root_path.encode() + raw_path


def _document_errors(document: dict[str, Any], limited: set[tuple[str, str]], stored: set[tuple[str, str]]) -> None:
    components = document.setdefault("components", {})
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
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            possible = {429: (method, path) in limited, 503: (method, path) in stored}
            _document_operation(path, method, operation, possible)


def _document_operation(path: str, method: str, operation: dict[str, Any], more: dict[int, bool]) -> None:
    """Add the errors that the operation may answer; what the route itself says of one (more than `{}`) stays."""
    answers = operation["responses"]
    for status in _DOCUMENTED:
        answer = answers.get(str(status))
        if "HTTPValidationError" in str(answer) or answer == {"description": http.client.responses[status]}:
            answers[str(status)] = _reference(status)  # FastAPI's own words
    possible = {
        401: "security" in operation,
        403: "security" in operation,
        404: "{" in path,
        409: method in _WRITES,
        422: "422" in answers,
        **more,
    }
    for status, is_possible in possible.items():
        if is_possible:
            answers.setdefault(str(status), _reference(status))
    answers.setdefault("default", _reference(""))
    operation.setdefault("description", f"{operation['summary']}.")


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


def _document_unchanged(document: dict[str, Any], cached: Iterable[tuple[str, str]]) -> None:
    for method, path in cached:
        operation = document.get("paths", {}).get(path, {}).get(method)
        if operation and method in ("get", "head"):
            operation["responses"]["304"] = {"description": "What `If-None-Match` names has not changed"}


def _operations(app: FastAPI, wanted: Callable[[ListedRoute], bool]) -> Iterator[tuple[str, str]]:
    for route in filter(wanted, listed_routes(app.routes)):
        for method in route.methods:
            yield method.lower(), route.context.path_format or ""


def _is_limited(route: ListedRoute) -> bool:
    return any(isinstance(call, ConfigurableRateLimiter) for call in route.calls)


def _needs_database(route: ListedRoute) -> bool:
    return any(call is db_session for call in route.calls)


def _is_cached(route: ListedRoute) -> bool:
    return route.dependant is not None and any(one.name == PARAMETER for one in route.dependant.dependencies)
