"""The fields of a new model: `number:str:unique`, `total:decimal(10,2)`, `note:text:nullable`."""

import json
import keyword
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel as Schema

from tools.generators.changes import GeneratorError
from tools.generators.names import SNAKE

FLAGS = ("unique", "index", "nullable")
MAX_LENGTH = 2000
MAX_INDEXED = 500
"""Characters; PostgreSQL refuses longer rows in an index."""
MAX_DIGITS = 15
"""SQLite keeps decimals as floats."""

_FIELD = re.compile(r"(?P<name>[^:]+):(?P<kind>\w+)(?:\((?P<sizes>\d+(?:,\d+)?)\))?(?P<flags>(?::\w+)*)")
_EVERYWHERE = ("id", "created_at", "updated_at", "deleted_at")
# The attributes of every model, spelled out as importing them takes a second.
MODEL_ATTRIBUTES = {
    *("column_names", "from_dict", "metadata", "registry", "to_dict", "type_annotation_map", "update"),
}
# Names in the class bodies of the templates, attributes of a factory, arguments of a repository's methods.
_TAKEN = {
    *("bool", "date", "datetime", "dict", "factory", "float", "int", "mapped_column", "nullable", "str"),
    *("build", "build_batch", "create", "create_batch", "reset_sequence", "stub", "stub_batch"),
    *("db", "for_update", "hard", "into", "params", "with_deleted"),
}


@dataclass(frozen=True)
class Kind:
    """A type of fields, as kinds.toml describes it."""

    python: str
    schema: str
    column: str = ""
    imports: Sequence[str] = ()
    schema_imports: Sequence[str] = ()
    factory_imports: Sequence[str] = ()
    factory: str = ""
    samples: Sequence[Any] = (-1, -2)
    invalid: Any = "x"
    sizes: Sequence[int] = ()
    indexable: bool = True
    uniquable: bool = True
    listable: bool = True


KINDS = {
    name: Kind(**values) for name, values in tomllib.loads(Path(__file__).with_name("kinds.toml").read_text()).items()
}


@dataclass(frozen=True)
class FieldSpec:
    """One field of a new model; the properties are what the templates write."""

    name: str
    kind: Kind
    sizes: Sequence[int]
    flags: frozenset[str]

    @property
    def nullable(self) -> bool:
        return "nullable" in self.flags

    @property
    def unique(self) -> bool:
        return "unique" in self.flags

    @property
    def column(self) -> str:
        """The line in the model."""
        arguments = [self.kind.column.format(*self.sizes)] if self.kind.column else []
        arguments += [f"{flag}=True" for flag in ("unique", "index") if flag in self.flags][:1]
        value = f" = mapped_column({', '.join(arguments)})" if arguments else ""
        return f"{self.name}: Mapped[{self.read}]{value}"

    @property
    def read(self) -> str:
        """The type of the stored value."""
        return f"{self.kind.python} | None" if self.nullable else self.kind.python

    @property
    def schema(self) -> str:
        """The type in a request's body."""
        return self.kind.schema.format(*self.sizes)

    @property
    def schema_imports(self) -> set[str]:
        """The imports of both types."""
        stored = {line for line in self.kind.imports if not line.startswith(("from sqlalchemy", "from app."))}
        return stored | set(self.kind.schema_imports)

    @property
    def factory(self) -> str:
        """The value in the factory; counting stays within the size."""
        return self.kind.factory.format(*self.sizes, digits=min(self.sizes[0], 9) if self.sizes else 9)

    @property
    def samples(self) -> list[str]:
        """Two values as JSON has them, as Python."""
        if not self.sizes or self.kind.python != "Decimal":
            return [_quoted(sample) for sample in self.kind.samples]
        step = -(10 ** -self.sizes[1])  # the smallest that the size allows
        return [_quoted(sample.format(*self.sizes, step=step, twice=2 * step)) for sample in self.kind.samples]

    @property
    def invalid(self) -> str:
        """A value that is refused."""
        return _quoted(self.kind.invalid)


def read_fields(texts: Sequence[str]) -> list[FieldSpec]:
    """The fields that are asked for; GeneratorError with one line for what is wrong."""
    if not texts:
        raise GeneratorError("a model needs fields: as in number:str:unique total:decimal placed_at:datetime")
    fields = [_read(text) for text in texts]
    names = [field.name for field in fields]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise GeneratorError(f"the field {repeated} is given twice")
    return fields


def _read(text: str) -> FieldSpec:
    found = _FIELD.fullmatch(text)
    if found is None:
        raise GeneratorError(f"{text!r} is no field: write name:type, with :unique, :index or :nullable behind it")
    _check_name(found["name"])
    if found["kind"] not in KINDS:
        raise GeneratorError(f"{found['name']}: there is no type {found['kind']}; there are {', '.join(KINDS)}")
    kind = KINDS[found["kind"]]
    flags = found["flags"].split(":")[1:]
    sizes = tuple(map(int, found["sizes"].split(","))) if found["sizes"] else kind.sizes
    _check_sizes(found["name"], found["kind"], sizes)
    _check_flags(found["name"], found["kind"], sizes, flags)
    return FieldSpec(found["name"], kind, sizes, frozenset(flags))


def _check_name(name: str) -> None:
    if not SNAKE.fullmatch(name):
        raise GeneratorError(f"{name!r} is no name of a field: write it as in placed_at")
    if keyword.iskeyword(name):
        raise GeneratorError(f"{name} is a keyword of Python: choose another name for the field")
    if name in _EVERYWHERE:
        raise GeneratorError(f"every model has the field {name} already")
    if name in {*MODEL_ATTRIBUTES, *dir(Schema), *_TAKEN} or name.startswith(("model_validate", "model_dump")):
        raise GeneratorError(f"{name} means something else in a model: choose another name for the field")


def _check_sizes(name: str, kind: str, sizes: Sequence[int]) -> None:
    if len(sizes) != len(KINDS[kind].sizes):
        usual = ",".join(map(str, KINDS[kind].sizes))
        raise GeneratorError(
            f"{name}: write {kind}({usual}), or {kind} alone" if usual else f"{name}: {kind} has no size"
        )
    if kind == "str" and not 1 <= sizes[0] <= MAX_LENGTH:
        raise GeneratorError(f"{name}: a str has 1 to {MAX_LENGTH} characters; text is for more")
    if kind == "decimal" and not 1 <= sizes[0] <= MAX_DIGITS:
        raise GeneratorError(f"{name}: a decimal has 1 to {MAX_DIGITS} digits, as SQLite keeps no more")
    if kind == "decimal" and sizes[1] > sizes[0]:
        raise GeneratorError(f"{name}: {sizes[1]} of {sizes[0]} digits cannot be behind the point")


def _check_flags(name: str, kind: str, sizes: Sequence[int], flags: Sequence[str]) -> None:
    if unknown := next((flag for flag in flags if flag not in FLAGS), None):
        raise GeneratorError(f"{name}: {unknown!r} is none of {', '.join(FLAGS)}")
    if "unique" in flags and not KINDS[kind].uniquable:
        raise GeneratorError(f"{name}: a {kind} cannot be unique")
    if "index" in flags and not KINDS[kind].indexable:
        raise GeneratorError(f"{name}: a {kind} cannot have an index")
    if kind == "str" and {"unique", "index"} & set(flags) and sizes[0] > MAX_INDEXED:
        raise GeneratorError(f"{name}: in an index a str has at most {MAX_INDEXED} characters")


def _quoted(value: Any) -> str:
    """The value as the formatter writes it."""
    return json.dumps(value) if isinstance(value, str | dict) else repr(value)
