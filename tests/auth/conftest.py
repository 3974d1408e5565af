"""Fixtures of the auth tests."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from app.auth.config import AuthConfig
from app.auth.deps import auth_config
from app.core.configs import AppConfig, get_settings


@pytest.fixture
def configure(app: FastAPI) -> Iterator[Callable[..., AuthConfig]]:
    """Run requests with other settings: `configure(USER_VERIFICATION_REQUIRED=True)`."""

    def use(**values: Any) -> AuthConfig:
        config = AuthConfig(**values)

        async def configured() -> AuthConfig:
            return config

        app.dependency_overrides[auth_config] = configured
        return config

    yield use
    app.dependency_overrides.pop(auth_config, None)


@pytest.fixture
def limited(app: FastAPI) -> Iterator[None]:
    """Rate limits count, as outside tests."""

    async def settings() -> AppConfig:
        return get_settings().model_copy(update={"RATE_LIMITER_ENABLED": True})

    app.dependency_overrides[get_settings] = settings
    yield
    app.dependency_overrides.pop(get_settings, None)
