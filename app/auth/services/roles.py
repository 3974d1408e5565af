"""Roles: what they hold and who has them."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.events import RoleChange, RoleChanged
from app.auth.exceptions import RoleInUse, RoleNotFound, RoleProtected, UnknownPermission
from app.auth.models import ADMIN, MEMBER, Role, User, UserRole
from app.auth.repositories import RoleRepository
from app.auth.schemas.role import GrantRead, PermissionRead, RoleCreate, RoleRead, RoleUpdate
from app.auth.services.accounts import AccountService, Actor
from app.core.db import BaseRepository
from app.core.identity import current_permissions


@dataclass(kw_only=True)
class RoleService(AccountService):
    """Shows and changes roles, grants and revokes them.

    Nobody gives or takes, by a grant or by a change of a role, what they do not hold; rights are judged with the rows
    locked. What changes counts from the next request of every account that has the role.
    """

    roles = RoleRepository()
    grants = BaseRepository[UserRole]()

    async def get_list(self, *, db: AsyncSession) -> list[RoleRead]:
        """Return all roles by name."""
        return await self.roles.describe(db=db)

    async def get(self, *, db: AsyncSession, **filters: Any) -> RoleRead:
        """Return the one role of this `id` or `name`; raises RoleNotFound."""
        for role in await self.roles.describe(db=db, **filters):
            return role
        raise RoleNotFound

    async def get_permissions(self, *, db: AsyncSession) -> list[PermissionRead]:
        """Return the permissions that modules declare, and those that one did before."""
        declared = {name: permission.text for name, permission in current_permissions().items()}
        texts = await self.roles.catalogue(db=db) | declared
        known = sorted(texts.items())
        return [PermissionRead(name=name, description=text, is_declared=name in declared) for name, text in known]

    async def create(self, data: RoleCreate, *, db: AsyncSession, by: Actor) -> RoleRead:
        """Make a role; raises UniqueViolation or UnknownPermission."""
        _require_declared(data.permissions)
        actor_id = await self.authorise(by, db=db, permissions=data.permissions, roles=[data.name])
        role = await self.roles.create(db=db, data={"name": data.name, "description": data.description})
        await self.roles.set_permissions(db=db, role_id=role.id, permissions=data.permissions)
        found = await self._tell(role, "created", db=db, actor_id=actor_id)
        await self.roles.commit(db=db)
        return found

    async def update(self, role_id: int, changes: RoleUpdate, *, db: AsyncSession, by: Actor) -> RoleRead:
        """Change a role; raises RoleProtected, UniqueViolation or UnknownPermission."""
        role = await self.roles.require(db=db, id=role_id, for_update=True)
        held = await self._held(role, db=db)
        values = changes.model_dump(exclude_unset=True)
        permissions = values.pop("permissions", held)
        if role.name == ADMIN or (role.name == MEMBER and values.get("name", MEMBER) != MEMBER):
            raise RoleProtected
        _require_declared(permissions, but=held)
        names = {role.name, values.get("name", role.name)}
        declared = current_permissions().keys() & {*held, *permissions}  # what is gone can stay and go
        actor_id = await self.authorise(by, db=db, permissions=declared, roles=names)
        await self.roles.update(db=db, model=role, data=values)
        await self.roles.set_permissions(db=db, role_id=role.id, permissions=permissions)
        found = await self._tell(role, "changed", db=db, actor_id=actor_id)
        await self.roles.commit(db=db)
        return found

    async def delete(self, role_id: int, *, db: AsyncSession, by: Actor) -> None:
        """Delete a role that nobody has; raises RoleProtected or RoleInUse."""
        role = await self.roles.require(db=db, id=role_id, for_update=True)
        actor_id = await self.authorise(by, db=db, permissions=await self._held(role, db=db))
        if role.name in (ADMIN, MEMBER):
            raise RoleProtected
        if await self.grants.exists(db=db, role_id=role.id):
            raise RoleInUse
        await self._tell(role, "deleted", db=db, actor_id=actor_id)
        await self.roles.delete(db=db, model=role)
        await self.roles.commit(db=db)

    async def get_grants(self, user_id: int, *, db: AsyncSession) -> list[GrantRead]:
        """Return the roles of an account; raises UserNotFound."""
        user = await self.users.require(db=db, id=user_id)
        return await self.roles.grants(db=db, user_id=user.id)

    async def grant(self, user_id: int, name: str, *, db: AsyncSession, by: Actor) -> None:
        """Give an account a role; does nothing where it has it. Raises UserNotFound or RoleNotFound."""
        user, actor_id = await self._require(user_id, name, db=db, by=by)
        is_new = await self.roles.grant(db=db, user_id=user.id, role=name, granted_by_id=actor_id)
        if not is_new and (name != ADMIN or user.is_superuser):
            return
        if name == ADMIN:
            await self.users.change(db=db, user=user, is_superuser=True)
        await self.announce_role(user, name, is_granted=True, actor_id=actor_id)
        await self.roles.commit(db=db)

    async def revoke(self, user_id: int, name: str, *, db: AsyncSession, by: Actor) -> None:
        """Take a role from an account, and void its links; does nothing where it does not have it.

        Raises UserNotFound, RoleNotFound or LastSuperuser.
        """
        user, actor_id = await self._require(user_id, name, db=db, by=by)
        if name == ADMIN:
            await self.require_another_superuser(user, db=db)
        if not await self.roles.revoke(db=db, user_id=user.id, role=name):
            return
        if name == ADMIN:
            await self.users.change(db=db, user=user, is_superuser=False)
        else:
            await self.users.raise_stamp(db=db, user_id=user.id)
        await self.announce_role(user, name, is_granted=False, actor_id=actor_id)
        await self.roles.commit(db=db)

    async def _require(self, user_id: int, name: str, *, db: AsyncSession, by: Actor) -> tuple[User, int | None]:
        """Return the locked account, and who changes it, once they may; the role is locked against deletion."""
        user = await self.users.require(db=db, id=user_id, for_update=True)
        # Not `admin`, which nobody deletes: a lock of its row would be taken before that of all administrators.
        role = await self.roles.require(db=db, name=name, for_update=name != ADMIN)
        held = await self._held(role, db=db)
        return user, await self.authorise(by, db=db, about=user.id, permissions=held, roles=[name])

    async def _held(self, role: Role, *, db: AsyncSession) -> list[str]:
        return (await self.get(db=db, id=role.id)).permissions

    async def _tell(self, role: Role, change: RoleChange, *, db: AsyncSession, actor_id: int | None) -> RoleRead:
        found = await self.get(db=db, id=role.id)
        holds = tuple(found.permissions)
        self.events.dispatch(RoleChanged(role=found.name, change=change, permissions=holds, actor_id=actor_id))
        return found


def _require_declared(permissions: list[str], *, but: Collection[str] = ()) -> None:
    known = {*current_permissions(), *but}
    if unknown := [position for position, name in enumerate(permissions) if name not in known]:
        raise UnknownPermission(unknown)
