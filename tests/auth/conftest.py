"""Fixtures of the auth tests."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.auth.config import AuthConfig, get_auth_config
from app.auth.services.throttling import CONFIRMATIONS, LOGINS, MAILS, REFRESHES
from app.core.api.sliding_windows import SlidingWindows
from app.core.configs import get_settings
from app.core.db import Database
from app.core.runtime import runtime
from tests.auth.takeover import Drain, Scenario, build
from tests.clients import Client
from tests.utils import CapturedMail

_addresses = ip_network("198.18.0.0/15").hosts()


@pytest.fixture
def configure(app: FastAPI) -> Iterator[Callable[..., AuthConfig]]:
    """Run requests with other settings: `configure(USER_VERIFICATION_REQUIRED=True)`."""

    def use(**values: Any) -> AuthConfig:
        config = AuthConfig(**values)
        app.dependency_overrides[get_auth_config] = lambda: config
        return config

    yield use
    app.dependency_overrides.pop(get_auth_config, None)


@pytest.fixture
async def limit(app: FastAPI, client: Client) -> AsyncIterator[Callable[[], None]]:
    """Make rate limits count from now on, as outside tests, from nothing: other tests had accounts of the same ids.

    `client` gets an address of the test's own, as the windows of addresses are those of the process.
    """
    client.call_from(str(next(_addresses)))
    for throttle in (LOGINS, CONFIRMATIONS, REFRESHES, MAILS):
        throttle.windows = SlidingWindows(*throttle.windows.rates)
    if redis := runtime().redis:
        async for key in redis.scan_iter(f"{runtime().settings.REDIS_KEY_PREFIX}limit:*", count=1000):
            await redis.delete(key)
    settings = get_settings().model_copy(update={"RATE_LIMITER_ENABLED": True})

    def start() -> None:
        app.dependency_overrides[get_settings] = lambda: settings

    yield start
    app.dependency_overrides.pop(get_settings, None)


@pytest.fixture
async def scenario(
    request: pytest.FixtureRequest,
    client: httpx.AsyncClient,
    drain: Drain,
    captured_mail: CapturedMail,
    configure: Callable[..., AuthConfig],
) -> AsyncIterator[Scenario]:
    """Scenario with verified addresses; the test also asks for `db`, or for `committed` and gets rows of its own."""
    configure(USER_VERIFICATION_REQUIRED=True)
    stores = request.getfixturevalue("db" if "db" in request.fixturenames else "committed")
    async with stores.session() if isinstance(stores, Database) else nullcontext(stores) as session:
        yield await build(session, client, drain, captured_mail, required=True)
