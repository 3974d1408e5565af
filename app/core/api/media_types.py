"""Which content types the body of a path operation may have."""

from typing import Any

from fastapi.params import Body, File, Form
from starlette.types import Scope

JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"


def media_type(content_type: bytes) -> str:
    """The type without its parameters, in lower case."""
    return content_type.partition(b";")[0].strip().lower().decode("latin-1")


def is_json(kind: str) -> bool:
    """Whether FastAPI reads a body of this type as JSON."""
    return kind == JSON or (kind.startswith("application/") and kind.endswith("+json"))


def takes_files(scope: Scope) -> bool:
    """Whether the operation a request took declares files."""
    return isinstance(_body_of(scope), File)


def expected_instead(scope: Scope, kind: str) -> str | None:
    """What the body should be, where the operation a request took cannot read `kind`.

    An operation that declares no body, or one of a type of its own, reads for itself.
    """
    body = _body_of(scope)
    if body is None:
        return None
    if isinstance(body, File):
        return None if kind == MULTIPART else MULTIPART
    if isinstance(body, Form):
        return None  # Starlette parses no form of another content type: FastAPI then says which fields are missing
    return JSON if body.media_type == JSON and not is_json(kind) else None


def _body_of(scope: Scope) -> Body | None:
    field: Any = getattr(scope.get("route"), "body_field", None)
    return field.field_info if field is not None and isinstance(field.field_info, Body) else None
