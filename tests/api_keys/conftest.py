"""An owner with a session, and clients that send a key."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.auth.models import User
from tests.auth.conftest import configure, limit
from tests.factories.user import UserFactory
from tests.utils import login_user

__all__ = ["configure", "limit"]

KEYS = "/api/v1/api-keys"
TOKEN = f"{KEYS}/token"

Make = Callable[..., Awaitable[dict[str, Any]]]
Sender = Callable[..., Awaitable[httpx.AsyncClient]]


async def shown(client: httpx.AsyncClient, key: dict[str, Any]) -> dict[str, Any]:
    """Return the key as the list of its owner's shows it."""
    answer = await client.get(KEYS, params={"owner_id": key["owner_id"]})
    found: dict[str, Any] = next(item for item in answer.json()["data"] if item["id"] == key["id"])
    return found


@pytest.fixture
async def owner(request: pytest.FixtureRequest, client: httpx.AsyncClient) -> User:
    """Somebody with two permissions, logged in with `client`; the test also asks for `db` or `committed`."""
    owner = await UserFactory.create(username="owner", permissions=["users:read", "users:write"])
    await login_user(client, owner)
    return owner


@pytest.fixture
def make(client: httpx.AsyncClient, owner: User) -> Make:
    """Make a key of the owner."""

    async def make(**body: Any) -> dict[str, Any]:
        answer = await client.post(KEYS, json={"name": "nightly", "scopes": ["users:read"], **body})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()["data"]
        return made

    return make


@pytest.fixture
async def sender(app: FastAPI) -> AsyncIterator[Sender]:
    """A client without a session that sends these headers: `await sender(x_api_key=text)`."""
    async with AsyncExitStack() as stack:

        async def start(application: FastAPI = app, **headers: str) -> httpx.AsyncClient:
            transport = httpx.ASGITransport(application, raise_app_exceptions=False, client=("198.51.100.7", 50000))
            named = {name.replace("_", "-"): text for name, text in headers.items()}
            return await stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://test", headers=named)
            )

        yield start
