"""Packages that are written for one test."""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.core.modules.discovery import find_external
from app.core.modules.module import ExternalModule
from app.core.modules.registration import register_modules

Package = Callable[..., ExternalModule]

ROUTES = """
from fastapi import APIRouter

router = APIRouter()

@router.get("/hello")
async def hello() -> str:
    return "hello"

def register(app):
    return router
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Write files of the package `name`, which can be imported until the test ends."""
    monkeypatch.syspath_prepend(tmp_path)
    written: set[str] = set()

    def make(name: str, files: Mapping[str, str]) -> Path:
        written.add(name)
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for file, text in files.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
        return folder

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] in written]:
        del sys.modules[name]


@pytest.fixture
def package(write: Callable[..., Path]) -> Package:
    """An installed package with one route, as a module."""

    def make(name: str = "guest", manifest: str = "", init: str = ROUTES) -> ExternalModule:
        chosen = f"{manifest}\n" if "entrypoint" in manifest else f'entrypoint = "{name}:register"\n{manifest}'
        write(name, {"__init__.py": init, "module.toml": chosen})
        return find_external(name)

    return make


@pytest.fixture
def host() -> FastAPI:
    """An application with one route of its own."""
    app = FastAPI()

    @app.get("/house/rooms")
    async def rooms() -> int:
        return 1

    return app


@pytest.fixture
def register(host: FastAPI) -> Callable[..., None]:
    """Let these packages join `host`."""
    return lambda *modules: register_modules(host, modules)
