"""Sample data of mail templates, for previews."""

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, create_model

from app.core.services.mail import BaseTemplate

T = TypeVar("T", bound=BaseTemplate)

_STRINGS = {
    "date": "2030-01-31",
    "date-time": "2030-01-31T12:00:00Z",
    "duration": "PT1H",
    "email": "ann@example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "time": "12:00:00Z",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def sample_of(kind: type[T]) -> T:
    """Return the template's own `sample()`, or one made of its fields' examples, defaults or types."""
    own = getattr(kind, "sample", None)
    made: T = own() if own else template_of(kind, sample_values(parameters_of(kind).model_json_schema()))
    return made


def template_of(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make a template of these values; ValidationError if they do not fit."""
    made = parameters_of(kind).model_validate(values)
    return made if isinstance(made, kind) else kind(**dict(made))


def parameters_of(kind: type[BaseTemplate]) -> type[BaseModel]:
    """Return the model that checks a template's values: its class, or one made of the parameters of its `__init__`."""
    if not kind.__pydantic_custom_init__:
        return kind
    hints = get_type_hints(kind.__init__, include_extras=True)
    fields: dict[str, Any] = {
        each.name: (hints.get(each.name, str), ... if each.default is each.empty else each.default)
        for each in list(inspect.signature(kind.__init__).parameters.values())[1:]
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }
    return create_model(kind.__name__, **fields)


def sample_values(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for every field: its first example, else its default, else something of its type."""
    definitions = schema.get("$defs", {})
    return {name: _sample(field, name, definitions) for name, field in schema.get("properties", {}).items()}


def _sample(schema: Mapping[str, Any], name: str, definitions: Mapping[str, Any]) -> Any:  # noqa: PLR0911
    if schema.get("examples"):
        return schema["examples"][0]
    for key in ("default", "const"):
        if key in schema:
            return schema[key]
    if "enum" in schema:
        return schema["enum"][0]
    if "$ref" in schema:
        target = schema["$ref"].rpartition("/")[2]
        others = {key: item for key, item in definitions.items() if key != target}
        # A type that contains itself ends here.
        return _sample(definitions[target], name, others) if target in definitions else None
    if choices := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return _sample(choices[0], name, definitions)
    match schema.get("type"):
        case "string":
            return _STRINGS.get(schema.get("format", ""), name)
        case "integer" | "number":
            return max(1, schema.get("minimum", 1), schema.get("exclusiveMinimum", 0) + 1)
        case "boolean":
            return True
        case "array":
            items = schema.get("prefixItems") or [schema.get("items", {})] * max(1, schema.get("minItems", 1))
            return [value for item in items if (value := _sample(item, name, definitions)) is not None]
        case "object":
            return {key: _sample(field, key, definitions) for key, field in schema.get("properties", {}).items()}
    return name
