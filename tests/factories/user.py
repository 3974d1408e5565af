"""Accounts for tests; their password is `tests.utils.PASSWORD`."""

import factory

from app.auth.models import User, UserStatus
from app.auth.security.identity import email_key, username_key
from tests.factories.async_alchemy_factory import AsyncSQLAlchemyModelFactory

PASSWORD_HASH = "$argon2id$v=19$m=8,t=1,p=1$ci6FsJYSwhjjHEMoZYwRgg$0V7V7Y22PQekazbYrZq2QLx7WLi0jguFqNUdsvi9eyo"
"""The hash of PASSWORD, with the parameters of `.test.env`."""


class UserFactory(AsyncSQLAlchemyModelFactory[User]):
    """`await UserFactory.create(is_superuser=True)`."""

    class Meta:
        model = User

    username = factory.Sequence(lambda n: f"user{n}")
    email = factory.LazyAttribute(lambda user: f"{user.username}@example.com")
    email_key = factory.LazyAttribute(lambda user: email_key(user.email))
    username_key = factory.LazyAttribute(lambda user: username_key(user.username))
    password_hash = PASSWORD_HASH
    status_id = UserStatus.ACTIVE
    is_verified = True
    is_superuser = False
