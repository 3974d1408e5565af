"""Names of published schemas: they begin with their module, so that no module renames the types of another."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import NoneType, UnionType
from typing import Any, ClassVar, Union, get_args, get_origin

from fastapi._compat import v2 as fastapi_schemas
from pydantic.json_schema import CoreModeRef, DefsRef, JsonSchemaMode

from app.core.exceptions import ConfigError

_JOINED: Mapping[Any, str] = {Union: "Or", UnionType: "Or"}


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
        for _, _, schema in inputs:
            self._collect(schema)
        mapping, definitions = super().generate_definitions(inputs)
        for name, definition in definitions.items():
            kind = self._types.get(self._taken.get(name, ""))
            if kind is not None and definition.get("title") == kind.__name__:
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

    def _collect(self, schema: Any) -> None:
        """The class behind each reference: that of a generic one names no modules."""
        if isinstance(schema, dict):
            if "ref" in schema and (kind := _class_of(schema)):
                self._types[schema["ref"]] = kind
            schema = schema.values()
        elif not isinstance(schema, list | tuple):
            return
        for part in schema:
            self._collect(part)

    def _name_of(self, kind: Any) -> str:
        """The name of a class, and of what is made of classes: `ListOfShopOrder`, `ShopOrderOrShopCart`."""
        generic = getattr(kind, "__pydantic_generic_metadata__", None) or {}
        origin, arguments = generic.get("origin") or get_origin(kind), generic.get("args") or get_args(kind)
        if origin in _JOINED:
            return "Or".join(map(self._name_of, arguments))
        if origin is None or not arguments:
            if kind is None or kind is NoneType:
                return "None"
            if not isinstance(kind, type):
                return "".join(map(_pascal, re.findall(r"\w+", str(kind))))
            return self._name_in(kind.__module__, kind.__name__)
        return f"{self._name_of(origin)}Of{'And'.join(map(self._name_of, arguments))}"

    def _name_in(self, module: str, name: str) -> str:
        owners = [one for one in self.modules if f"{module}.".startswith(f"{one}.")]
        name = (
            "".join(map(_pascal, re.findall(r"[^\W_]+", name))) if module == "builtins" else re.sub(r"\W+", "_", name)
        )
        prefix = "".join(map(_pascal, self.modules[max(owners, key=len)].split("_"))) if owners else ""
        return name if name.startswith(prefix) else prefix + name


def _class_of(schema: dict[str, Any]) -> type | None:
    """The class that a schema describes; validators of the whole stand around it, without a reference of its own."""
    inner: Any = schema
    while isinstance(inner, dict) and "cls" not in inner and (inner is schema or "ref" not in inner):
        inner = inner.get("schema")
    kind = inner.get("cls") if isinstance(inner, dict) and (inner is schema or "ref" not in inner) else None
    return kind if isinstance(kind, type) else None


def _split(ref: str) -> tuple[str, str]:
    """Module and name of `app.shop.schemas.Order:94332893804368`."""
    module, _, name = re.sub(r":\d+", "", ref).rpartition(".")
    return module, name


def _pascal(word: str) -> str:
    return word[:1].upper() + word[1:]
