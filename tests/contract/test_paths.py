"""The import paths that keep their names; those of auth are in test_auth_paths.py."""

import importlib

import pytest

pytestmark = pytest.mark.once

PUBLISHED = {
    "app.core.api": "ConfigurableRateLimiter ListParamsBuilder PaginatedResponse Response",
    "app.core.configs": "BaseConfig app_config",
    "app.core.configs.structlog": "",
    "app.core.db": "BaseModel BaseRepository FilterParam ListParams PaginatedResult SoftDeleteMixin SortParam",
    "app.core.deps": (
        "CacheService DBSession EventsService HttpClient MailService QueueService cached listener logger queued"
    ),
    "app.core.listeners": "",
    "app.core.models": "metadata",
    "app.core.routers": "router_v1 routers_v2",
    "app.core.services.cache": "CacheServiceInterface",
    "app.core.services.events": "BaseEvent EventsServiceInterface ListenedEvent",
    "app.core.services.log": "LogServiceInterface",
    "app.core.services.mail": "BaseTemplate EmailData MailServiceInterface",
    "app.core.services.queue": "BaseTask QueueServiceInterface",
    "app.core.tasks": "",
    "app.main": "app create_app",
    "tests.factories.async_alchemy_factory": "AsyncSQLAlchemyModelFactory",
    "tests.utils": "login_user",
}


@pytest.mark.parametrize(("path", "names"), PUBLISHED.items(), ids=PUBLISHED)
def test_it_is_there(path: str, names: str) -> None:
    module = importlib.import_module(path)
    assert [name for name in names.split() if not hasattr(module, name)] == []
