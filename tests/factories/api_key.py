"""Keys for tests; their text is `text`, which only the factory knows."""

from datetime import timedelta

import factory

from app.api_keys.models import ApiKey
from app.api_keys.security import hash_of, new_prefix, new_text
from app.core.db import utcnow
from tests.factories.async_alchemy_factory import AsyncSQLAlchemyModelFactory


class ApiKeyFactory(AsyncSQLAlchemyModelFactory[ApiKey]):
    """A key of the account `owner_id`; `text=` chooses what is presented."""

    class Meta:
        model = ApiKey
        exclude = ("text",)

    text = factory.LazyFunction(lambda: new_text(new_prefix()))
    name = "tests"
    prefix = factory.LazyAttribute(lambda key: key.text.rpartition("_")[0])
    secret_hash = factory.LazyAttribute(lambda key: hash_of(key.text))
    scopes = factory.LazyFunction(list)
    expires_at = factory.LazyFunction(lambda: utcnow() + timedelta(days=1))
