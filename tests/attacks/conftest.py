"""The service in this process as a target."""

import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from app.auth.config import AuthConfig, get_auth_config
from app.core.configs import get_settings
from app.core.db import Database
from app.core.runtime import runtime
from app.core.services.log import configure_logging
from tests.attacks.document import Document
from tests.attacks.inside import Stores
from tests.attacks.target import Account, Target
from tests.conftest import backend
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail

BASE = "http://test"


def transport_of(app: ASGIApp) -> Callable[[str], httpx.AsyncBaseTransport]:
    """Requests to the application from any address."""
    return lambda address: httpx.ASGITransport(app=app, raise_app_exceptions=False, client=(address, 50000))


@pytest.fixture
def log() -> Iterator[io.BytesIO]:
    """All that is logged, at DEBUG."""
    lines = io.BytesIO()
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the client's own lines have whole URLs
    configure_logging(get_settings().model_copy(update={"LOG_LEVEL": "DEBUG", "LOG_FORMAT": "json"}), lines)
    yield lines
    configure_logging(get_settings())


@pytest.fixture
async def target(
    app: FastAPI,
    committed: Database,
    drain: Callable[[], Awaitable[int]],
    captured_mail: CapturedMail,
    log: io.BytesIO,
) -> AsyncIterator[Target]:
    """The service where addresses must be verified, with an administrator, from within."""
    config = AuthConfig(USER_VERIFICATION_REQUIRED=True)
    limited = get_settings().model_copy(update={"RATE_LIMITER_ENABLED": True})
    admin = await UserFactory.create(is_superuser=True)
    own = backend.environment()

    @asynccontextmanager
    async def limits() -> AsyncIterator[Target]:
        app.dependency_overrides[get_settings] = lambda: limited
        yield made
        app.dependency_overrides.pop(get_settings)

    secret = config.JWT_SECRET_KEY
    assert secret is not None
    made = Target(
        urls=[BASE],
        transport=transport_of(app),
        document=Document(app.openapi()),
        admin=Account(admin.email, admin.username, PASSWORD, admin.id),
        inside=Stores(
            database=committed.engine.url,
            redis=(own["REDIS_URL"], runtime().settings.REDIS_KEY_PREFIX or "kit") if own["REDIS_URL"] else None,
            mail=captured_mail,
            log=lambda: log.getvalue().decode(),
            jwt_secret=secret.get_secret_value(),
            settle=drain,
        ),
        limits=limits,
        own_addresses=True,
    )
    app.dependency_overrides[get_auth_config] = lambda: config
    async with made:
        yield made
    app.dependency_overrides.pop(get_auth_config, None)
