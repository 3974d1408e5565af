"""Clients that are logged in, for the tests of every module."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import Any, TypeAlias

import pytest
from fastapi import FastAPI

from app.auth.config import get_auth_config
from app.auth.models import ADMIN, User
from app.core.db import utcnow
from app.core.identity import current_permissions
from tests.clients import Client
from tests.factories.auth_session import AuthSessionFactory
from tests.factories.user import UserFactory


class UserClient(Client):
    """A client that is logged in as `user`."""

    user: User


AsUser: TypeAlias = Callable[..., Awaitable[UserClient]]


async def user_client(
    user: User | None = None,
    *,
    app: FastAPI,
    permissions: Iterable[str] = (),
    roles: Iterable[str] = (),
    scope: Iterable[str] | None = None,
    expired: bool = False,
    **values: Any,
) -> UserClient:
    """Return a client that is logged in as `user`, or as a new one who holds `permissions` and `roles`.

    The session and its token are those of a login, made without one: no password is hashed, and no event, job or mail
    tells of it. `scope` narrows them, `expired` ends them; `values` are columns of the new account.
    """
    if unknown := {*permissions, *(scope or ())} - current_permissions().keys():
        raise ValueError(f"no module declares {', '.join(sorted(unknown))}")
    account = user or await UserFactory.create(permissions=permissions, roles=roles, **values)
    config = app.dependency_overrides.get(get_auth_config, get_auth_config)()
    lifetime = timedelta(days=config.REFRESH_TOKEN_EXPIRE_DAYS)
    began = utcnow() - (lifetime + timedelta(seconds=1) if expired else timedelta())
    session = await AuthSessionFactory.create(
        user_id=account.id,
        scope=None if scope is None else " ".join(scope),
        expires_at=began + lifetime,
    )
    token, _ = config.access_tokens.issue(
        user_id=account.id, session_id=session.id, session_ends=session.expires_at, now=began
    )
    client = UserClient(app, headers={"Authorization": f"Bearer {token}"})
    client.user = account
    return client


@pytest.fixture
def as_user(app: FastAPI) -> AsUser:
    """Log in as somebody: `await as_user(permissions=["users:read"])`; the test also asks for `db` or `committed`."""
    return partial(user_client, app=app)


@pytest.fixture
def as_admin(app: FastAPI) -> AsUser:
    """Log in as an administrator: `await as_admin()`."""
    return partial(user_client, app=app, roles=[ADMIN])


@pytest.fixture
def as_expired(app: FastAPI) -> AsUser:
    """Log in as somebody whose token and session have expired, whatever the permissions: `await as_expired()`."""
    return partial(user_client, app=app, expired=True)
