"""Clients with a key, for the tests of every module."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias

import pytest
from fastapi import FastAPI

from app.api_keys.models import ApiKey
from app.api_keys.security import new_prefix, new_text
from app.auth.models import User
from app.core.db import utcnow
from app.core.identity import current_permissions
from tests.clients import Client
from tests.factories.api_key import ApiKeyFactory
from tests.factories.user import UserFactory


class KeyClient(Client):
    """A client that sends `key`, of the account `user`."""

    user: User
    key: ApiKey


AsKey: TypeAlias = Callable[..., Awaitable[KeyClient]]


async def key_client(
    owner: User | None = None, *, app: FastAPI, scopes: Iterable[str] = (), expired: bool = False, **values: Any
) -> KeyClient:
    """Return a client with a key for `scopes`: of `owner`, or of a new account that holds them as permissions.

    `expired` ends the key; `values` are columns of the new account.
    """
    if unknown := set(scopes) - current_permissions().keys():
        raise ValueError(f"no module declares {', '.join(sorted(unknown))}")
    user = owner or await UserFactory.create(permissions=scopes, **values)
    text = new_text(new_prefix())
    client = KeyClient(app, headers={"X-API-Key": text})
    client.user = user
    client.key = await ApiKeyFactory.create(
        owner_id=user.id, text=text, scopes=sorted(scopes), expires_at=utcnow() + timedelta(days=-1 if expired else 1)
    )
    return client


@pytest.fixture
def as_key(app: FastAPI) -> AsKey:
    """Call with a key: `await as_key(scopes=["users:read"])`; the test also asks for `db` or `committed`."""
    return partial(key_client, app=app)
