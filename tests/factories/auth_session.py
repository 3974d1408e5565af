"""Sessions for tests."""

from datetime import timedelta

import factory

from app.auth.models import AuthSession
from app.core.db import utcnow
from tests.factories.async_alchemy_factory import AsyncSQLAlchemyModelFactory


class AuthSessionFactory(AsyncSQLAlchemyModelFactory[AuthSession]):
    """A session of the account `user_id`."""

    class Meta:
        model = AuthSession

    device = "tests"
    address = "192.0.2.1"
    expires_at = factory.LazyFunction(lambda: utcnow() + timedelta(days=30))
