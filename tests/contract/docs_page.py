"""Runs the Python snippets of one page of the docs, in order, in one namespace, against a started application.

A program of its own, as snippets define tables, tasks and listeners that no other test should meet.
Beside plain Python a snippet may `await` and use `client` (an administrator is logged in), `as_user`, `as_admin`,
`as_expired`, `app`, `db`, `drain`, `captured_mail`, `http_stubs` and `published_events`. Tables it defines are made at
once, a `router` it defines is included at once. A snippet after `<!-- not run -->` is left out; it must still be valid
Python. At the end rule M6 judges the tables; the rules about imports are for test_docs_boundaries.py.
"""

import ast
import asyncio
import inspect
import linecache
import re
import sys
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from app.auth.models import ADMIN
from app.core.api.routes import listed_routes
from app.core.configs import PROJECT_ROOT
from app.core.db import BaseModel
from app.core.modules import Module, present_modules
from app.core.runtime import runtime
from app.main import create_app
from tests.auth.fixtures import user_client
from tests.factories.async_alchemy_factory import use_session
from tests.factories.user import UserFactory
from tests.utils import CapturedMail, HttpStubs, PublishedEvents, login_user
from tools.boundaries.tables import table_violations
from tools.boundaries.violations import Exceptions

_SNIPPET = re.compile(r"(?P<skip><!-- not run -->\n)?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
_TABLE = re.compile(r'__tablename__ = "([a-z]+)_')


def snippets(page: Path) -> Iterator[tuple[int, str, bool]]:
    """Line number, code and whether to run it, of every Python snippet of `page`."""
    text = page.read_text()
    for found in _SNIPPET.finditer(text):
        yield text.count("\n", 0, found.start("code")) + 1, found["code"], found["skip"] is None


async def run_page(page: Path) -> int:
    """Run the snippets of `page`; how many there were."""
    app = create_app(run_jobs=False)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        runtime().database.session() as db,
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        with use_session(db), PublishedEvents.recorded() as published_events:
            await login_user(client, await UserFactory.create(is_superuser=True))
            http_stubs = HttpStubs()
            runtime().http = http_stubs.client
            module = _module_for(page)
            vars(module).update(
                app=app,
                as_user=partial(user_client, app=app),
                as_admin=partial(user_client, app=app, roles=[ADMIN]),
                as_expired=partial(user_client, app=app, expired=True),
                client=client,
                db=db,
                drain=runtime().runner.drain,
                captured_mail=CapturedMail(runtime().settings.mail_dir),
                http_stubs=http_stubs,
                published_events=published_events,
            )
            count = 0
            for line, code, wanted in snippets(page):
                compiled = compile("\n" * (line - 1) + code, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                if wanted:
                    await _run(compiled, vars(module), app)
                    count += 1
            assert (found := crossed_tables(module)) == [], found
            assert page.name == "contract.md" or (found := unsaid_routes(app)) == [], found  # which came before marks
            return count


def _module_for(page: Path) -> types.ModuleType:
    """The namespace of `page`: the file `page` of the module that its tables are named after."""
    table = _TABLE.search(page.read_text(encoding="utf-8"))
    root = types.ModuleType(f"app.{table[1] if table else f'docs_{page.stem}'}")
    root.__path__ = []  # it has no other files
    module = types.ModuleType(f"{root.__name__}.page")
    file = str(PROJECT_ROOT / "docs" / page.name)
    for one in (root, module):
        one.__file__ = file
        sys.modules.setdefault(one.__name__, one)  # pydantic and SQLAlchemy look annotations up there
    lines: list[str] = []
    for line, code, _ in snippets(page):  # where a table is defined is looked up in the source
        lines += ["\n"] * (line - 1 - len(lines)) + code.splitlines(keepends=True)
    linecache.cache[file] = (0, None, lines, file)
    return module


def crossed_tables(module: types.ModuleType) -> list[str]:
    """What M6 says of the tables that the page has defined."""
    found = [*present_modules(), Module(module.__name__.rpartition(".")[0], PROJECT_ROOT / "docs")]
    modules = {one.short_name: one for one in reversed(found)}
    return list(map(str, table_violations("app", PROJECT_ROOT, modules, Exceptions(modules.values()))))


def unsaid_routes(app: FastAPI) -> list[str]:
    """The routes of the page that `kit routes --check` would refuse."""
    return [route.path for route in listed_routes(app.routes) if not route.is_mount and not route.access]


async def _run(code: types.CodeType, namespace: dict[str, Any], app: FastAPI) -> None:
    included = namespace.get("router")
    result = eval(code, namespace)
    if inspect.isawaitable(result):
        await result
    async with runtime().database.engine.begin() as connection:
        await connection.run_sync(BaseModel.metadata.create_all)
    router = namespace.get("router")
    if router is not None and router is not included:
        app.include_router(router, prefix="/api/v1")


if __name__ == "__main__":
    print(asyncio.run(run_page(Path(sys.argv[1]))))
