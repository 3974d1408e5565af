"""The OpenAPI document: stable operation ids, and every error answer as the problem it is."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic.json_schema import models_json_schema
from starlette.types import Receive, Scope, Send

from app.core.api.limiter import ConfigurableRateLimiter
from app.core.api.problems import MEDIA_TYPE, InputProblem, Problem, title_of
from app.core.deps import db_session
from app.core.services.cache.answers import EXCHANGE

_REF = "#/components/{kind}/{name}"
_WRITES = ("post", "put", "patch", "delete")
_DOCUMENTED = (401, 403, 404, 409, 422, 429, 503)


def operation_id(route: APIRoute) -> str:
    """`<tag>_<function>`: does not change with the path, and reads well in a generated client."""
    return f"{route.tags[0]}_{route.name}" if route.tags else route.name


class DocumentedAPI(FastAPI):
    """FastAPI whose document shows the error answers this service really gives."""

    base_path = ""
    """Where the service stands, as `/svc`, whether the proxy in front strips that from the path or not."""

    _finished: dict[str, Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.base_path and scope["type"] in ("http", "websocket"):
            _put_below(self.base_path, scope)
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The document; FastAPI makes it anew when routes were added."""
        document = super().openapi()
        if document is not self._finished:
            self._finished = document
            limited, stored = set(_operations(self, _is_limited)), set(_operations(self, _needs_database))
            _document_errors(document, limited, stored)
            _document_unchanged(document, _operations(self, _is_cached))
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
    components["responses"] = {"Problem": _answer("Any other error", "Problem")} | {
        f"Problem{status}": _answer(title_of(status), "InputProblem" if status == 422 else "Problem")
        for status in _DOCUMENTED
    }
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            possible = {429: (method, path) in limited, 503: (method, path) in stored}
            _document_operation(path, method, operation, possible)


def _document_operation(path: str, method: str, operation: dict[str, Any], more: dict[int, bool]) -> None:
    answers = operation["responses"]
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
            answers[str(status)] = {"$ref": _REF.format(kind="responses", name=f"Problem{status}")}
    answers["default"] = {"$ref": _REF.format(kind="responses", name="Problem")}


def _answer(description: str, schema: str) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": _REF.format(kind="schemas", name=schema)}}}
    return {"description": description, "content": content}


def _document_unchanged(document: dict[str, Any], cached: Iterable[tuple[str, str]]) -> None:
    for method, path in cached:
        operation = document.get("paths", {}).get(path, {}).get(method)
        if operation and method in ("get", "head"):
            operation["responses"]["304"] = {"description": "What `If-None-Match` names has not changed"}


def _operations(app: FastAPI, wanted: Callable[[Dependant], bool]) -> Iterator[tuple[str, str]]:
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, APIRoute) and wanted(context.dependant):
            for method in context.methods or ():
                yield method.lower(), context.path_format or ""


def _is_limited(dependant: Dependant) -> bool:
    return isinstance(dependant.call, ConfigurableRateLimiter) or any(map(_is_limited, dependant.dependencies))


def _needs_database(dependant: Dependant) -> bool:
    return dependant.call is db_session or any(map(_needs_database, dependant.dependencies))


def _is_cached(dependant: Dependant) -> bool:
    return any(dependency.name == EXCHANGE for dependency in dependant.dependencies)
