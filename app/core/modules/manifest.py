"""The manifest of a module, `module.toml`: its schema, reading it, and the faults of one that cannot be used."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from app.core.configs import PROJECT_ROOT
from app.core.exceptions import ConfigError

MANIFEST = "module.toml"

Rule = Literal["M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8"]
Sentence = Annotated[str, Field(min_length=1, pattern=r"\S")]


class BoundaryException(BaseModel):
    """One deliberate breach of a boundary: everything in `source` may use everything in `target`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Rule
    source: Annotated[Sentence, Field(alias="from")]
    target: Annotated[Sentence, Field(alias="to")]
    reason: Sentence


class Manifest(BaseModel):
    """The manifest of an internal module."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    depends_on: tuple[Sentence, ...] = Field((), examples=['depends_on = ["app.auth"]'])
    exposes: tuple[Sentence, ...] = Field((), examples=['exposes = ["deps", "schemas.user"]'])
    migrations: Literal["shared", "own"] = Field("shared", examples=['migrations = "shared", or "own"'])
    exceptions: tuple[BoundaryException, ...] = Field(
        (),
        examples=['[[exceptions]] with rule = "M1", from = "app.shop.deps", to = "app.auth.deps", reason = "..."'],
    )


class ExternalManifest(Manifest):
    """The manifest of an external module."""

    exposes: tuple[()] = Field((), examples=["nothing: no rule judges what is imported from a package"])
    migrations: Literal["own"] = Field("own", examples=['migrations = "own"'])
    name: Sentence | None = Field(None, examples=['name = "shop_reviews"'])
    entrypoint: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", examples=['entrypoint = "package.module:function"']
    )
    migrations_dir: Sentence = Field("migrations", examples=['migrations_dir = "migrations"'])
    models_module: str | None = Field(None, pattern=r"^[A-Za-z_][\w.]*$", examples=['models_module = "package.models"'])
    route_prefix: str | None = Field(
        None, pattern=r"^(/[^/\s?#]+)*$", examples=['route_prefix = "/reviews", or "" for none']
    )


M = TypeVar("M", bound=Manifest)


def read_manifest(path: Path, schema: type[M]) -> M:
    """Read the manifest at `path`; ConfigError with one line for each fault."""
    return check_manifest(path, read_toml(path), schema)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; ConfigError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{shown(path)}: not valid TOML: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{shown(path)}: not valid TOML: it is not UTF-8 at byte {exc.start}") from exc
    except OSError as exc:
        raise ConfigError(f"{shown(path)}: cannot be read: {exc.strerror}") from exc


def check_manifest(path: Path, content: Mapping[str, Any], schema: type[M]) -> M:
    """Validate `content`, read from `path`; ConfigError with one line for each fault."""
    try:
        return schema.model_validate(content)
    except ValidationError as exc:
        faults = [_fault(fault, schema) for fault in exc.errors(include_url=False, include_context=False)]
        raise ConfigError("\n".join(f"{shown(path)}: {fault}" for fault in faults)) from exc


def shown(path: Path) -> str:
    """Return the path relative to the project, where it is inside."""
    return str(path.relative_to(PROJECT_ROOT) if path.is_relative_to(PROJECT_ROOT) else path)


def did_you_mean(name: str, known: list[str]) -> str:
    """Return the closest match as a clause to append, or nothing. Only the part behind the last dot is compared."""
    by_last_part = {one.rpartition(".")[2]: one for one in known}
    close = difflib.get_close_matches(name.rpartition(".")[2], by_last_part, n=1)
    return f"; did you mean {by_last_part[close[0]]}?" if close else ""


def _fault(fault: ErrorDetails, schema: type[Manifest]) -> str:
    if fault["type"] == "extra_forbidden":
        fields = schema if len(fault["loc"]) == 1 else BoundaryException
        known = [field.alias or name for name, field in fields.model_fields.items()]
        name = str(fault["loc"][-1])
        return f"{_key(fault)}: unknown key" + (did_you_mean(name, known) or f"; the keys are {', '.join(known)}")
    (example,) = schema.model_fields[str(fault["loc"][0])].examples or ("",)
    return f"{_key(fault)}: {fault['msg'][0].lower()}{fault['msg'][1:]}; write {example}"


def _key(fault: ErrorDetails) -> str:
    """`exceptions[0].rule`"""
    first, *rest = fault["loc"]
    return str(first) + "".join(f"[{item}]" if isinstance(item, int) else f".{item}" for item in rest)
