"""Values to look at a template with, made from its JSON schema."""

from collections.abc import Mapping
from typing import Any

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


def sample_values(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A value for every field: its first example, else its default, else something of its type."""
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
