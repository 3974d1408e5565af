"""Types whose values must not be stored, and values that are of one."""

from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Secret, SecretBytes, SecretStr
from typing_extensions import is_typeddict


def holds_secret(annotation: Any, _within: tuple[Any, ...] = ()) -> bool:
    """Tell whether `annotation` is a secret type or contains one, at any depth."""
    kind = get_origin(annotation) or annotation
    if isinstance(kind, type) and issubclass(kind, Secret | SecretStr | SecretBytes):
        return True
    if any(kind is outer for outer in _within):
        return False  # a type may contain itself
    parts = [*get_args(annotation), *_fields(kind)]
    return any(holds_secret(part, (*_within, kind) if _fields(kind) else _within) for part in parts)


def is_secret(value: Any) -> bool:
    """Tell whether `value` is a secret or holds one, at any depth."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(is_secret, value))
    return isinstance(value, Secret | SecretBytes | SecretStr)


def _fields(kind: Any) -> list[Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [field.annotation for field in kind.model_fields.values()]
    if is_dataclass(kind) or is_typeddict(kind) or hasattr(kind, "_fields"):
        return list(get_type_hints(kind).values())
    return []
