"""Applications with routes of the test's own, on the open runtime."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from app.core.configs import AppConfig, get_settings
from app.core.services.log import configure_logging
from app.main import create_app

CLIENT = ("192.0.2.1", 50000)

Serve = Callable[..., Awaitable[httpx.AsyncClient]]


def make_app(*routers: APIRouter, **settings: Any) -> FastAPI:
    """The service with `settings`, and with `routers` beside its own."""
    application = create_app(AppConfig(**settings), run_jobs=False)
    for router in routers:
        application.include_router(router)
    configure_logging(get_settings())
    return application


@pytest.fixture
async def serve(app: FastAPI) -> AsyncIterator[Serve]:
    """`await serve(router, SETTING=...)`: a client of such an application. The suite's own keeps the runtime open."""
    async with AsyncExitStack() as stack:

        async def start(
            *routers: APIRouter, client: tuple[str, int] = CLIENT, base_url: str = "http://test", **settings: Any
        ) -> httpx.AsyncClient:
            transport = httpx.ASGITransport(make_app(*routers, **settings), raise_app_exceptions=False, client=client)
            return await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url=base_url))

        yield start
