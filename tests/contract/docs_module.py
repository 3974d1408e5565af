"""The Python snippets of a page as the files of a module, for the rules about imports.

Each statement goes to the file that docs/modules.md names for its kind (a table to `models`, a `...Service` to
`services`, a `can_...` to `policies`) and imports what it uses. A snippet that begins with `# app/shop/deps.py` is
that file. Tests are left out: a snippet that begins with `# tests/...`, that imports from `tests` or `tools`, or that
uses what only tests have (`app`, `client`, `db`, `drain`, `captured_mail`, `http_stubs`, `published_events`). What it
defines without these is judged all the same.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tests.contract.docs_page import snippets

ONLY_IN_TESTS = {"app", "as_admin", "as_expired", "as_user"}
ONLY_IN_TESTS |= {"captured_mail", "client", "db", "drain", "http_stubs", "published_events"}
KINDS = {
    "Annotated": "deps",
    "AppError": "exceptions",
    "BaseConfig": "config",
    "BaseEvent": "events",
    "BaseRepository": "repositories",
    "BaseTask": "tasks",
    "FilterParam": "schemas",
    "ListParams": "schemas",
    "Schema": "schemas",
    "SecurityEvent": "events",
    "SortParam": "schemas",
    "listener": "listeners",
    "queued": "tasks",
    "requires_permission": "policies",
    "router": "routes",
    "router_v1": "routes",
}
"""By a decorator, a base or what is called."""
NAMES = {"^can_": "policies", "^router": "routes", "Error$": "exceptions", "Gateway": "gateway", "Service$": "services"}
REST = "usage"
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

_PATH = re.compile(r"# (?P<folder>app|tests)/(?P<path>\S+\.py)\b")


class PageModule:
    """What a page defines and imports, as files of one module."""

    def __init__(self, page: Path) -> None:
        self.name = f"docs_{page.stem.lower().replace('-', '_')}"
        self.files: dict[str, list[str]] = {}
        self._imports: dict[str, str] = {}
        self._defined: dict[str, str] = {}
        statements: list[tuple[str, ast.stmt]] = []
        unused: set[str] = set()
        for _, code, _ in snippets(page):
            path = _PATH.match(code)
            if path and path["folder"] == "app":
                self.files.setdefault(path["path"], []).append(code)
            elif path is None:
                only_in_tests = self._only_in_tests(code)
                found = [*self._read(code)]
                if only_in_tests.isdisjoint(_globals(code)):
                    statements += found
                    unused |= _imported(code).keys()
                else:
                    kept = [one for one in found if one[0] != REST or isinstance(one[1], DEFINITIONS)]
                    statements += [one for one in kept if only_in_tests.isdisjoint(_names(one[1]))]
        for file, statement in statements:
            unused -= _names(statement)
            self._add(file, [*self._imports_for(_names(statement) - _bound(statement), file), _text(file, statement)])
        self._add(REST, [self._imports[name] for name in sorted(unused)])

    def sources(self) -> dict[str, str]:
        """The text of each file, by its path below `app/`."""
        return {path: "\n".join(parts) for path, parts in self.files.items()}

    def _add(self, file: str, lines: list[str]) -> None:
        self.files.setdefault(f"{self.name}/{file}.py", []).extend(lines)

    def _only_in_tests(self, code: str) -> set[str]:
        """The names that make a statement of this snippet a test's."""
        bound = set().union(*map(_bound, ast.parse(code).body))
        own = bound | {*self._imports, *self._defined, *_imported(code)}
        return (ONLY_IN_TESTS - own) | {
            name for name, text in _imported(code).items() if text.startswith(("from tests", "from tools"))
        }

    def _read(self, code: str) -> Iterator[tuple[str, ast.stmt]]:
        self._imports |= _imported(code)
        for statement in ast.parse(code).body:
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                file = file_of(statement)
                self._defined |= dict.fromkeys(_bound(statement), file)
                yield file, statement

    def _imports_for(self, names: set[str], file: str) -> Iterator[str]:
        for name in sorted(names):
            if self._defined.get(name, file) != file:
                yield f"from app.{self.name}.{self._defined[name]} import {name}"
            elif name in self._imports and name not in self._defined:
                yield self._imports[name]


def _imported(code: str) -> dict[str, str]:
    """The statement that binds each imported name."""
    found = {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                only: ast.stmt = ast.Import([alias])
                if isinstance(node, ast.ImportFrom):
                    only = ast.ImportFrom(node.module, [alias], node.level)
                found[(alias.asname or alias.name).partition(".")[0]] = ast.unparse(only)
    return found


def _text(file: str, statement: ast.stmt) -> str:
    text = ast.unparse(statement)
    return "async def use():\n" + textwrap.indent(text, "    ") if file == REST else text  # it awaits, perhaps


def file_of(statement: ast.stmt) -> str:
    """The file that a statement belongs into, without `.py`."""
    decorators = [word for node in getattr(statement, "decorator_list", []) for word in _words(node)[:1]]
    bases = [word for node in getattr(statement, "bases", []) for word in _words(node)]
    kinds = [
        KINDS[word] for word in (*decorators, *bases, *_words(getattr(statement, "value", None))[:1]) if word in KINDS
    ]
    if isinstance(statement, ast.ClassDef) and any("__tablename__" in _bound(node) for node in statement.body):
        kinds.insert(0, "models")
    names = [file for name in _bound(statement) for pattern, file in NAMES.items() if re.search(pattern, name)]
    return next(iter([*kinds, *names]), REST)


def _bound(statement: ast.stmt) -> set[str]:
    if isinstance(statement, DEFINITIONS):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _words(node: ast.AST | None) -> list[str]:
    """The names in an expression, the outermost first: `Annotated[Shop, Depends(x)]` is Annotated, Shop, Depends, x."""
    return [found.id for found in ast.walk(node) if isinstance(found, ast.Name)] if node else []


def _names(node: ast.AST) -> set[str]:
    """The names that a statement uses and does not bind inside."""
    names = [found for found in ast.walk(node) if isinstance(found, ast.Name)]
    bound = {found.arg for found in ast.walk(node) if isinstance(found, ast.arg)}
    bound |= {found.id for found in names if isinstance(found.ctx, ast.Store)}
    return {found.id for found in names} - bound


def _globals(code: str) -> set[str]:
    """The names that a snippet uses or imports at its top or inside of what it defines."""
    return set().union(*map(_names, ast.parse(code).body)) | _imported(code).keys()
