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
    """One field of a new model, as the templates write it."""

    name: str
    kind: Kind
    flags: frozenset[str]
    read: str  # the type of the stored value
    schema: str  # the type in a request's body
    schema_imports: set[str]  # of both types
    column: str  # the line in the model
    factory: str
    samples: Sequence[str]  # two values as JSON has them, as Python
    invalid: str  # a value that is refused

    @property
    def nullable(self) -> bool:
        """True where the field may be without a value."""
        return "nullable" in self.flags


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
    name = found["name"]
    _check_name(name)
    if found["kind"] not in KINDS:
        raise GeneratorError(f"{name}: there is no type {found['kind']}; there are {', '.join(KINDS)}")
    kind, flags = KINDS[found["kind"]], found["flags"].split(":")[1:]
    sizes = [int(size) for size in found["sizes"].split(",")] if found["sizes"] else kind.sizes
    if fault := _size_fault(found["kind"], sizes) or _flag_fault(found["kind"], sizes, flags):
        raise GeneratorError(f"{name}: {fault}")
    read = f"{kind.python} | None" if "nullable" in flags else kind.python
    arguments = [kind.column.format(*sizes)] if kind.column else []
    arguments += [f"{flag}=True" for flag in ("unique", "index") if flag in flags][:1]
    return FieldSpec(
        name=name,
        kind=kind,
        flags=frozenset(flags),
        read=read,
        schema=kind.schema.format(*sizes),
        schema_imports={
            *(line for line in kind.imports if not line.startswith(("from sqlalchemy", "from app."))),
            *kind.schema_imports,
        },
        column=f"{name}: Mapped[{read}]" + (f" = mapped_column({', '.join(arguments)})" if arguments else ""),
        # Counting stays within the size.
        factory=kind.factory.format(*sizes, digits=min(sizes[0], 9) if sizes else 9),
        samples=[_quoted(sample) for sample in _samples(kind, sizes)],
        invalid=_quoted(kind.invalid),
    )


def _samples(kind: Kind, sizes: Sequence[int]) -> Sequence[Any]:
    if kind.python != "Decimal":
        return kind.samples
    step = -(10 ** -sizes[1])  # the smallest that the size allows
    return [sample.format(*sizes, step=step, twice=2 * step) for sample in kind.samples]


def _check_name(name: str) -> None:
    if not SNAKE.fullmatch(name):
        raise GeneratorError(f"{name!r} is no name of a field: write it as in placed_at")
    if keyword.iskeyword(name):
        raise GeneratorError(f"{name} is a keyword of Python: choose another name for the field")
    if name in _EVERYWHERE:
        raise GeneratorError(f"every model has the field {name} already")
    if name in {*MODEL_ATTRIBUTES, *dir(Schema), *_TAKEN} or name.startswith(("model_validate", "model_dump")):
        raise GeneratorError(f"{name} means something else in a model: choose another name for the field")


def _size_fault(kind: str, sizes: Sequence[int]) -> str | None:
    if len(sizes) != len(KINDS[kind].sizes):
        usual = ",".join(map(str, KINDS[kind].sizes))
        return f"write {kind}({usual}), or {kind} alone" if usual else f"{kind} has no size"
    if kind == "str" and not 1 <= sizes[0] <= MAX_LENGTH:
        return f"a str has 1 to {MAX_LENGTH} characters; text is for more"
    if kind == "decimal" and not 1 <= sizes[0] <= MAX_DIGITS:
        return f"a decimal has 1 to {MAX_DIGITS} digits, as SQLite keeps no more"
    if kind == "decimal" and sizes[1] > sizes[0]:
        return f"{sizes[1]} of {sizes[0]} digits cannot be behind the point"
    return None


def _flag_fault(kind: str, sizes: Sequence[int], flags: Sequence[str]) -> str | None:
    if unknown := next((flag for flag in flags if flag not in FLAGS), None):
        return f"{unknown!r} is none of {', '.join(FLAGS)}"
    if "unique" in flags and not KINDS[kind].uniquable:
        return f"a {kind} cannot be unique"
    if "index" in flags and not KINDS[kind].indexable:
        return f"a {kind} cannot have an index"
    if kind == "str" and {"unique", "index"} & set(flags) and sizes[0] > MAX_INDEXED:
        return f"in an index a str has at most {MAX_INDEXED} characters"
    return None


def _quoted(value: Any) -> str:
    """The value as the formatter writes it."""
    return json.dumps(value) if isinstance(value, str | dict) else repr(value)
