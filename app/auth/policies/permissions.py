"""Permissions by name, for policies of this and other modules."""

from collections.abc import Awaitable, Callable

from app.auth.deps import ActiveUser
from app.auth.exceptions import ActionNotAllowed
from app.auth.schemas.user import UserDTO


def requires_permission(permission: str) -> Callable[[UserDTO], Awaitable[None]]:
    """A policy: may the user do what `permission`, such as `users:read`, is for?

    Until roles exist a superuser holds every permission, and nobody else any.
    """

    async def holds_permission(user: ActiveUser) -> None:
        if not user.is_superuser:
            raise ActionNotAllowed

    holds_permission.__doc__ = f"Does the user hold `{permission}`?"
    return holds_permission
