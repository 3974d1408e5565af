"""The OpenAPI document of the target: its operations, the schemas of their bodies, and values that fit them."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_METHODS = ("get", "post", "put", "patch", "delete")
_SECRET_NAME = re.compile(r"password|secret|token|api_?key|credential|otp|passphrase", re.IGNORECASE)
_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"
MAIL_DOMAIN = "example.com"


@dataclass(frozen=True)
class Operation:
    """One method of one path, as the document has it."""

    method: str
    path: str
    spec: dict[str, Any]
    document: "Document"

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def secured(self) -> bool:
        """True if the document asks for a credential."""
        needed = self.spec.get("security", self.document.content.get("security", []))
        return bool(needed) and {} not in needed

    @property
    def permissions(self) -> set[str]:
        """The scopes that the document asks for."""
        return {scope for one in self.spec.get("security", []) for scopes in one.values() for scope in scopes}

    @property
    def placeholders(self) -> list[str]:
        """The names in braces."""
        return re.findall(r"\{(\w+)\}", self.path)

    def parameters(self, place: str) -> list[dict[str, Any]]:
        """The parameters in `path`, `query`, `header` or `cookie`."""
        shared = self.document.content["paths"][self.path].get("parameters", [])
        found = [self.document.resolved(one) for one in (*shared, *self.spec.get("parameters", []))]
        return [one for one in found if one.get("in") == place]

    def _body(self, media: str) -> dict[str, Any] | None:
        content = self.document.resolved(self.spec.get("requestBody", {})).get("content", {})
        schema = next((one.get("schema", {}) for name, one in content.items() if name.startswith(media)), None)
        return None if schema is None else self.document.resolved(schema)

    @cached_property
    def json_body(self) -> dict[str, Any] | None:
        """The schema of its JSON body, None if it takes none."""
        return self._body(_JSON)

    @cached_property
    def form_body(self) -> dict[str, Any] | None:
        """The schema of its form."""
        return self._body(_FORM) or self._body("multipart/form-data")

    @property
    def bodies(self) -> dict[str, dict[str, Any]]:
        """Its body schemas by the name of the argument that httpx takes them by."""
        found = {"json": self.json_body, "data": self.form_body}
        return {name: schema for name, schema in found.items() if schema is not None}

    def fields(self, schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The properties of a body, those of its variants too."""
        return dict(self.document.properties(schema))

    def example(self, kind: str = "json") -> dict[str, Any]:
        """A body that fits the schema; {} if it takes none."""
        schema = self.bodies.get(kind)
        made = self.document.example(schema, every=self.method == "PATCH") if schema else {}
        return made if isinstance(made, dict) else {}


class Document:
    """An OpenAPI document."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    @cached_property
    def operations(self) -> list[Operation]:
        """Every operation."""
        return [
            Operation(method.upper(), path, item[method], self)
            for path, item in self.content.get("paths", {}).items()
            for method in _METHODS
            if method in item
        ]

    @cached_property
    def prefix(self) -> str:
        """What stands before `/auth/login`; ValueError where the document has no such path."""
        for path in self.content.get("paths", {}):
            if path.endswith("/auth/login"):
                return str(path).removesuffix("/auth/login")
        raise ValueError("the OpenAPI document has no path that ends in /auth/login")

    @cached_property
    def key_headers(self) -> list[str]:
        """The headers that carry credentials other than Authorization."""
        schemes = self.content.get("components", {}).get("securitySchemes", {}).values()
        return sorted(
            {str(one["name"]) for one in schemes if one.get("type") == "apiKey" and one.get("in") == "header"}
        )

    def find(self, method: str, path: str) -> Operation | None:
        """The operation of `path` below the prefix, None if there is none."""
        for one in self.operations:
            if one.method == method and one.path == self.prefix + path:
                return one
        return None

    def resolved(self, part: dict[str, Any]) -> dict[str, Any]:
        """Follow `$ref`."""
        for _ in range(20):
            if "$ref" not in part:
                return part
            found: Any = self.content
            for step in part["$ref"].removeprefix("#/").split("/"):
                found = found.get(step, {})
            part = found
        return {}

    def properties(self, schema: dict[str, Any], depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
        """The properties of an object and of its variants."""
        schema = self.resolved(schema)
        for name, one in schema.get("properties", {}).items():
            yield name, self.resolved(one)
        if depth < 6:
            for variant in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
                yield from self.properties(variant, depth + 1)

    @cached_property
    def answer_fields(self) -> set[str]:
        """Every field of every answer, at any depth."""
        found: set[str] = set()
        for operation in self.operations:
            for status, answer in operation.spec.get("responses", {}).items():
                if str(status).startswith("2"):
                    for media in self.resolved(answer).get("content", {}).values():
                        self._collect(media.get("schema", {}), found, 0)
        return found - {"data", "meta"}

    def _collect(self, schema: dict[str, Any], found: set[str], depth: int) -> None:
        schema = self.resolved(schema)
        if depth > 8:
            return
        for name, one in self.properties(schema):
            found.add(name)
            self._collect(one, found, depth + 1)
        for part in ("items", "additionalProperties"):
            if isinstance(schema.get(part), dict):
                self._collect(schema[part], found, depth + 1)

    def is_secret(self, name: str, schema: dict[str, Any]) -> bool:
        """True for a field that holds a password, a token or a key."""
        if schema.get("format") == "password":
            return True
        return bool(_SECRET_NAME.search(name)) and schema.get("type", "string") == "string"

    def example(self, schema: dict[str, Any], name: str = "", *, every: bool = False, depth: int = 0) -> Any:
        """A value that fits; `every`: with the optional properties too."""
        schema = self.resolved(schema)
        fixed = [schema[name] for name in ("const", "default") if schema.get(name) is not None]
        if fixed := fixed + list(schema.get("enum", ())):
            return fixed[0]
        for variants in ("anyOf", "oneOf", "allOf"):
            known = [self.resolved(one) for one in schema.get(variants, ())]
            usable = [one for one in known if one.get("type") != "null" and ("properties" in one or "type" in one)]
            if usable and "properties" not in schema:
                return self.example(usable[0], name, every=every, depth=depth)
        kind = schema.get("type")
        if kind == "object" or "properties" in schema:
            return self._object(schema, every=every, depth=depth)
        if kind == "array":
            one = self.example(schema.get("items", {}), name, depth=depth + 1) if depth < 6 else None
            return [one] * max(1, int(schema.get("minItems", 1)))
        if kind in ("integer", "number"):
            return max(1, int(schema.get("minimum", 1)), int(schema.get("exclusiveMinimum", 0)) + 1)
        return True if kind == "boolean" else _text(schema, name)

    def _object(self, schema: dict[str, Any], *, every: bool, depth: int) -> dict[str, Any]:
        needed = set(schema.get("required", ()))
        variants = [self.resolved(one) for one in (*schema.get("oneOf", ()), *schema.get("anyOf", ()))]
        if variants:
            needed |= set(variants[0].get("required", ()))
        return {
            name: self.example(one, name, depth=depth + 1)
            for name, one in self.properties(schema)
            if depth < 6 and (every or name in needed)
        }


def _text(schema: dict[str, Any], name: str) -> str:
    made = {
        "email": new_address(),
        "password": new_password(),
        "date-time": "2030-01-31T12:00:00Z",
        "date": "2030-01-31",
        "time": "12:00:00Z",
        "uuid": "7f9c24e8-3b12-4fef-91e0-f3c6e5a1d2b4",
        "uri": "https://example.com/attack",
        "ipv4": "192.0.2.7",
        "binary": "attack",
    }.get(schema.get("format", ""))
    if made is None:
        made = new_password() if "password" in name else new_name()
        pattern, length = schema.get("pattern"), int(schema.get("minLength", 0))
        candidates = (made, "attack", "attack:read", "1", "a1", "A1b2C3", "127.0.0.1", *schema.get("examples", ()))
        if pattern:
            made = next((one for one in candidates if re.search(pattern, one)), made)
        made = made.ljust(length, "x")
    longest = schema.get("maxLength")
    return made[: int(longest)] if longest else made


def new_name() -> str:
    """A user name nobody has, nor any other text."""
    return f"attack-{secrets.token_hex(6)}"


def new_address() -> str:
    """An address nobody has."""
    return f"{new_name()}@{MAIL_DOMAIN}"


def new_password() -> str:
    """A password that no policy refuses."""
    return f"{secrets.token_urlsafe(18)}-aA1"
