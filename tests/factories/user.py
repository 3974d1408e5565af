"""Accounts for tests; their password is `tests.utils.PASSWORD`."""

from collections.abc import Iterable
from typing import Any

import factory
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.auth.models import ADMIN, MEMBER, Role, RolePermission, User, UserRole, UserStatus
from app.auth.security.identity import email_key, username_key
from tests.factories.async_alchemy_factory import AsyncSQLAlchemyModelFactory

PASSWORD_HASH = "$argon2id$v=19$m=8,t=1,p=1$ci6FsJYSwhjjHEMoZYwRgg$0V7V7Y22PQekazbYrZq2QLx7WLi0jguFqNUdsvi9eyo"
"""The hash of PASSWORD, with the parameters of `.test.env`."""


class UserFactory(AsyncSQLAlchemyModelFactory[User]):
    """`await UserFactory.create(roles=["admin"])`, or with `permissions=["users:read"]` in a role of its own."""

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

    @classmethod
    def _save(
        cls, model: type[User], session: Session, args: Any, kwargs: dict[str, Any]
    ) -> User:  # factory-boy's place to store
        permissions: Iterable[str] = kwargs.pop("permissions", ())
        roles = {MEMBER, *kwargs.pop("roles", ()), *([ADMIN] if kwargs["is_superuser"] else [])}
        kwargs["is_superuser"] = ADMIN in roles
        user: User = super()._save(model, session, args, kwargs)  # type: ignore[no-untyped-call]  # of the library
        session.flush()
        found = {row.name: row.id for row in session.scalars(select(Role).where(Role.name.in_(roles)))}
        role_ids = [found[name] for name in sorted(roles)]
        if permissions:
            role = Role(name=f"of_user_{user.id}")
            session.add(role)
            session.flush()
            session.add_all(RolePermission(role_id=role.id, permission=name) for name in permissions)
            role_ids.append(role.id)
        session.add_all(UserRole(user_id=user.id, role_id=role_id) for role_id in role_ids)
        return user
