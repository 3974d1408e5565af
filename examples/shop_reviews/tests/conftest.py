"""The package in an application of its own."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

import shop_reviews
from shop_reviews.kit import Kit
from tests.standin import StandInKit


@pytest.fixture
async def kit() -> AsyncIterator[StandInKit]:
    """What the package believes to be the service."""
    found = StandInKit()
    _: Kit = found  # mypy compares
    await found.prepare()
    yield found
    await found.engine.dispose()


@pytest.fixture
async def client(kit: StandInKit) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application with nothing but the package."""
    app = FastAPI()
    app.state.kit = kit
    app.include_router(shop_reviews.register(app), prefix="/shop_reviews")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as http:
        yield http
