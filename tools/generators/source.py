"""Python source: rendered from a template, merged into a file, formatted."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tools.generators.changes import GeneratorError

_environment = Environment(  # noqa: S701  renders Python and TOML, not HTML
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def rendered(template: str, **values: Any) -> str:
    """The template `<template>.jinja` with these values."""
    return _environment.get_template(f"{template}.jinja").render(values)


def merged(existing: str, addition: str) -> str:
    """`existing` with the imports of `addition` among its own, and the rest of it at the end."""
    if not existing.strip():
        return addition
    old, new = existing.splitlines(), addition.splitlines()
    old_end, (new_begin, new_end) = _import_lines(existing)[1], _import_lines(addition)
    parts = [*old[:old_end], *new[new_begin:new_end], *old[old_end:], "", "", *new[new_end:]]
    return "\n".join(parts).rstrip() + "\n"


def export(source: str, name: str) -> str:
    """`source` with `name` in its `__all__`, which is added where it is missing."""
    if "__all__ = [" in source:
        return source.replace("__all__ = [", f'__all__ = ["{name}", ', 1)
    return f'{source.rstrip()}\n\n__all__ = ["{name}"]\n'


def clash(existing: str, addition: str) -> str | None:
    """A name that would stand for two things at the top of `existing` once it holds `addition`."""
    known = dict(_bindings(existing))
    for name, origin in _bindings(addition):
        if known.setdefault(name, origin) != origin:
            return name
    return None


def tidy(paths: Iterable[Path], root: Path) -> None:
    """Sort imports and format with the project's rules; GeneratorError where ruff is not installed."""
    files = [str(path) for path in paths if path.suffix == ".py"]
    if not files:
        return  # without a file ruff takes all of them
    if importlib.util.find_spec("ruff") is None:
        raise GeneratorError("what is generated is formatted with ruff, a development tool: make setup")
    for arguments in (["check", "--fix-only", "--quiet"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *arguments, *files]
        subprocess.run(command, cwd=root, check=True, capture_output=True)  # noqa: S603


def check_parses(source: str, path: str) -> None:
    """GeneratorError where a file that is to be extended is not valid Python."""
    try:
        ast.parse(source)
    except SyntaxError as exc:
        raise GeneratorError(f"{path}:{exc.lineno}: not valid Python") from exc


def _import_lines(source: str) -> tuple[int, int]:
    """The number of lines before the imports at the top, and up to their end."""
    body = ast.parse(source).body
    begin = body[0].end_lineno or 0 if body and ast.get_docstring(ast.Module(body, [])) is not None else 0
    end = begin
    for node in body[1 if begin else 0 :]:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            break
        end = node.end_lineno or end
    return begin, end


def _bindings(source: str) -> Iterator[tuple[str, str]]:
    """Each name at the top of `source`, and where it comes from."""
    for number, node in enumerate(ast.parse(source).body):
        here = f"{id(source)}:{number}"
        match node:
            case ast.Import() | ast.ImportFrom():
                module = getattr(node, "module", None)
                yield from ((one.asname or one.name, f"{module}:{one.name}") for one in node.names)
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.name, here
            case ast.Assign(targets=targets):
                yield from ((target.id, here) for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name, here
