"""Fixtures of the auth tests."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from app.auth.config import AuthConfig, get_auth_config
from app.core.configs import get_settings


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
def limit(app: FastAPI) -> Iterator[Callable[[], None]]:
    """Make rate limits count from now on, as outside tests."""
    settings = get_settings().model_copy(update={"RATE_LIMITER_ENABLED": True})

    def start() -> None:
        app.dependency_overrides[get_settings] = lambda: settings

    yield start
    app.dependency_overrides.pop(get_settings, None)
