"""Fixtures of the whole suite. The settings are made before anything of `app` is imported."""

import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests import backends

# `make test` starts one half in the background, where shells have SIGINT ignored: processes would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

backend = backends.choose()
os.environ.update(backend.environment())

from fastapi import FastAPI  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402
from pydantic import SecretStr  # noqa: E402
from sqlalchemy.engine import URL  # noqa: E402
from sqlalchemy.ext.asyncio import AsyncSession  # noqa: E402

from app.core.configs import get_settings  # noqa: E402
from app.core.db.session import Database  # noqa: E402
from app.core.migrations.migrate import Migrations  # noqa: E402
from app.core.runtime import runtime  # noqa: E402
from app.main import create_app  # noqa: E402
from tests.clients import Client  # noqa: E402
from tests.factories.async_alchemy_factory import use_session  # noqa: E402
from tests.utils import CapturedMail, HttpStubs, PublishedEvents, program  # noqa: E402

# A module offers fixtures to the tests of all others in `tests/<module>/fixtures.py`.
pytest_plugins = [f"tests.{path.parent.name}.fixtures" for path in Path(__file__).parent.glob("*/fixtures.py")]

PATIENCE_SECONDS = 60
"""How long a request of a test waits for a connection: a hundred at once take turns, on a slow machine for longer than
the service would let them."""


def pytest_report_header() -> str:
    """Which half of the suite this is."""
    return f"backend: {backend.name}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What says the same whatever the stores is tried by one half alone: the embedded one, which has less to do.

    In `make e2e` that is the served one.
    """
    busier = backends.Served if not os.environ.get("E2E") else backends.Embedded
    if isinstance(backend, busier) and os.environ.get("TEST_DATABASE_URL"):
        once = [item for item in items if item.get_closest_marker("once")]
        config.hook.pytest_deselected(items=once)
        items[:] = [item for item in items if item not in once]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs a program that is not here; fail it if `REQUIRED_TOOLS` names the program."""
    for name in (name for mark in item.iter_markers("needs") for name in mark.args if program(name) is None):
        required = name in os.environ.get("REQUIRED_TOOLS", "").split()
        (pytest.fail if required else pytest.skip)(f"needs {name}")


def pytest_collection_finish() -> None:
    """Leave what is loaded by now out of garbage collections: each would stop the clients and servers of tests."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say it again where people look: at the end."""
    terminalreporter.write_line(f"ran {backend.name}")


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    backend.close()


@pytest.fixture(scope="session")
def template() -> URL:
    """The template database, made by the real migrations."""
    Migrations(backend.template).upgrade()
    return backend.template


@pytest.fixture(scope="session")
def main_database(template: URL) -> Iterator[URL]:
    """The copy whose transactions `db` rolls back."""
    url = backend.copy()
    yield url
    backend.drop(url)


@pytest.fixture(scope="session")
async def app(main_database: URL) -> AsyncIterator[FastAPI]:
    """The application, started; jobs run only when a test drains them."""
    application = create_app(run_jobs=False)
    async with application.router.lifespan_context(application):
        started = runtime().database
        runtime().database = Database.connect(main_database, pool_timeout=PATIENCE_SECONDS)
        runtime().http = HttpStubs().client
        yield application
        await runtime().database.close()
        runtime().database = started


@pytest.fixture
async def db(app: FastAPI) -> AsyncIterator[AsyncSession]:
    """A session in a transaction that is rolled back after the test; requests and jobs share its connection."""
    original = runtime().database
    async with original.engine.connect() as connection:
        transaction = await connection.begin()
        runtime().database = Database(original.engine, bind=connection)
        try:
            async with runtime().database.session() as session:
                with use_session(session):
                    yield session
        finally:
            await _settle()
            runtime().database = original
            await transaction.rollback()


@pytest.fixture
async def committed(app: FastAPI) -> AsyncIterator[Database]:
    """A database of the test's own, a fresh copy of the template, for what must really commit."""
    original = runtime().database
    url = backend.copy()
    database = runtime().database = Database.connect(url, pool_timeout=PATIENCE_SECONDS)
    try:
        async with database.session() as session:
            with use_session(session):
                yield database
    finally:
        await _settle()
        runtime().database = original
        await database.close()
        backend.drop(url)


async def _settle() -> None:
    """Wait for what was dispatched outside a unit: stored any later, it would be another test's."""
    await runtime().background.close(10)


@pytest.fixture
async def client(request: pytest.FixtureRequest, app: FastAPI) -> AsyncIterator[Client]:
    """A client of the application, at first anonymous; the test also asks for `db` or `committed`."""
    if not {"db", "committed"} & set(request.fixturenames):
        pytest.fail("a test that uses `client` also asks for `db` or `committed`")
    async with Client(app) as http:
        yield http


@pytest.fixture
def sync_client(template: URL) -> Iterator[TestClient]:
    """FastAPI's client for tests that are no coroutines and for websockets, with a database of its own."""
    url = backend.copy()
    settings = get_settings().model_copy(update={"DATABASE_URL": SecretStr(url.render_as_string(hide_password=False))})
    try:
        with TestClient(create_app(settings, run_jobs=False), raise_server_exceptions=False) as http:
            runtime().http = HttpStubs().client
            yield http
    finally:
        backend.drop(url)


@pytest.fixture
def drain(app: FastAPI) -> Callable[[], Awaitable[int]]:
    """Run every job that is due, until none is; gives back how many ran. Waits for what is still being stored."""

    async def run() -> int:
        await runtime().background.idle()
        return await runtime().runner.drain()

    return run


@pytest.fixture
def captured_mail(app: FastAPI) -> CapturedMail:
    """The mails captured since the test began."""
    mails = CapturedMail(runtime().settings.mail_dir)
    mails.clear()
    return mails


@pytest.fixture
def http_stubs(app: FastAPI) -> Iterator[HttpStubs]:
    """What other services answer. Without it every call is refused: no test reaches the network."""
    stubs = HttpStubs(runtime().settings.HTTP_INTEGRATIONS)
    before, runtime().http = runtime().http, stubs.client
    yield stubs
    runtime().http = before
    assert stubs.refused == []


@pytest.fixture
def published_events(app: FastAPI) -> Iterator[PublishedEvents]:
    """The events of this test whose transaction committed."""
    with PublishedEvents.recorded() as events:
        yield events
