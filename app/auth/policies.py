"""Policies: each raises ActionNotAllowed where the answer to its question is no.

They work as a dependency of a route and as a plain call: `await can_write_users(user)`.
"""

from collections.abc import Awaitable, Callable

from app.auth.deps import ActiveUser
from app.auth.exceptions import ActionNotAllowed
from app.auth.schemas.user import UserDTO
from app.core.api.inputs import RowId
from app.core.identity import admits


def requires_permission(permission: str) -> Callable[[UserDTO], Awaitable[None]]:
    """A policy: may the user do what `permission`, such as `users:read`, is for?

    Until roles exist a superuser holds every permission, and nobody else any.
    """

    @admits(permission)
    async def holds_permission(user: ActiveUser) -> None:
        if not user.is_superuser:
            raise ActionNotAllowed(missing=permission)

    holds_permission.__doc__ = f"Does the user hold `{permission}`?"
    return holds_permission


can_list_users = requires_permission("users:read")
"""May the user see everybody's accounts?"""

can_write_users = requires_permission("users:write")
"""May the user make, change and delete accounts?"""


@admits("users:read")
async def can_read_user(user: ActiveUser, user_id: RowId) -> None:
    """May the user see this account: their own, or anybody's with `users:read`?"""
    if user.id != user_id:
        await can_list_users(user)


async def can_grant_superuser(user: ActiveUser) -> None:
    """May the user make and unmake superusers? Writing accounts is not enough: it would lift its holder to the top."""
    if not user.is_superuser:
        raise ActionNotAllowed("Only a superuser makes or unmakes superusers.")
