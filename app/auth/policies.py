"""Policies: each raises ActionNotAllowed where the answer to its question is no.

They work as a dependency of a route, as a decorator of it and as a plain call: `await can_write_users(user)`.
"""

import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar, overload

from fastapi import Depends

from app.auth.deps import ActiveUser
from app.auth.exceptions import ActionNotAllowed
from app.auth.schemas.user import UserDTO
from app.core.api.inputs import RowId
from app.core.identity import admits, asked_permissions, asked_roles

F = TypeVar("F", bound=Callable[..., Any])


class Policy:
    """A question about the caller, answered by what they hold: a permission or a role."""

    def __init__(self, *, permission: str | None = None, role: str | None = None) -> None:
        self.permission, self.role = permission, role
        self.__doc__ = f"Does the user hold `{permission or role}`?"

        async def ask(user: ActiveUser) -> None:
            if permission not in user.permissions and role not in user.roles:
                raise ActionNotAllowed(missing=permission or f"role:{role}")

        self.__wrapped__ = ask  # FastAPI takes the policy for this function
        admits(permission or f"role:{role}")(self)

    @overload
    def __call__(self, user: UserDTO) -> Awaitable[None]: ...

    @overload
    def __call__(self, user: F) -> F: ...

    def __call__(self, user: Any) -> Any:
        return self._guarded(user) if inspect.isroutine(user) else self.__wrapped__(user)

    def _guarded(self, endpoint: Callable[..., Any]) -> Callable[..., Any]:
        """Give the endpoint a parameter that FastAPI fills by asking."""
        signature, name = inspect.signature(endpoint), f"_asked_{id(self)}"

        @wraps(endpoint)
        def guarded(*args: Any, **given: Any) -> Any:
            given.pop(name, None)
            return endpoint(*args, **given)

        added = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=Depends(self))
        parameters = sorted([*signature.parameters.values(), added], key=lambda parameter: parameter.kind)
        guarded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return guarded


def requires_permission(permission: str) -> Policy:
    """A policy: may the user do what `permission`, such as `users:read`, is for? A module must declare it."""
    asked_permissions.add(permission)
    return Policy(permission=permission)


def requires_role(role: str) -> Policy:
    """A policy: does the user have the role, such as `admin`?"""
    asked_roles.add(role)
    return Policy(role=role)


can_list_users = requires_permission("users:read")
"""May the user see everybody's accounts?"""

can_write_users = requires_permission("users:write")
"""May the user make, change and delete accounts?"""


can_list_roles = requires_permission("roles:read")
"""May the user see roles and permissions?"""

can_write_roles = requires_permission("roles:write")
"""May the user make, change, delete, grant and revoke roles?"""


@admits("roles:read")
async def can_read_grants(user: ActiveUser, user_id: RowId) -> None:
    """May the user see the roles of this account: their own, or anybody's with `roles:read`?"""
    if user.id != user_id:
        await can_list_roles(user)


@admits("users:read")
async def can_read_user(user: ActiveUser, user_id: RowId) -> None:
    """May the user see this account: their own, or anybody's with `users:read`?"""
    if user.id != user_id:
        await can_list_users(user)
