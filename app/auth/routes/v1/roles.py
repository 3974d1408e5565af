"""Roles, permissions, and the roles of accounts."""

from typing import Annotated, TypeAlias

from fastapi import APIRouter, Depends, Path

from app.auth.deps import Services
from app.auth.policies import can_list_roles, can_read_grants, can_write_roles
from app.auth.routes.v1.users import administrator
from app.auth.schemas.role import ROLE_NAME, GrantRead, PermissionRead, RoleCreate, RoleRead, RoleUpdate
from app.auth.services.accounts import Administrator
from app.core.api import Response
from app.core.api.inputs import RowId
from app.core.deps import DBSession

router = APIRouter(tags=["roles"])

RoleName: TypeAlias = Annotated[str, Path(max_length=32, pattern=ROLE_NAME)]
RoleAdmin = Annotated[Administrator, administrator(can_write_roles)]


@router.get("/permissions", dependencies=[Depends(can_list_roles)])
async def list_permissions(db: DBSession, services: Services) -> Response[list[PermissionRead]]:
    """The permissions that modules declare, and those that one did before."""
    return Response(data=await services.roles.get_permissions(db=db))


@router.get("/roles", dependencies=[Depends(can_list_roles)])
async def list_roles(db: DBSession, services: Services) -> Response[list[RoleRead]]:
    """All roles."""
    return Response(data=await services.roles.get_list(db=db))


@router.post("/roles", status_code=201, dependencies=[Depends(can_write_roles)])
async def create_role(body: RoleCreate, db: DBSession, services: Services, by: RoleAdmin) -> Response[RoleRead]:
    """Make a role, of permissions that the caller holds."""
    return Response(data=await services.roles.create(body, db=db, by=by))


@router.get("/roles/{role_id}", dependencies=[Depends(can_list_roles)])
async def read_role(role_id: RowId, db: DBSession, services: Services) -> Response[RoleRead]:
    """One role."""
    return Response(data=await services.roles.get(db=db, id=role_id))


@router.patch("/roles/{role_id}", dependencies=[Depends(can_write_roles)])
async def update_role(
    role_id: RowId, body: RoleUpdate, db: DBSession, services: Services, by: RoleAdmin
) -> Response[RoleRead]:
    """Change a role. The caller holds what it held before and what it holds afterwards."""
    return Response(data=await services.roles.update(role_id, body, db=db, by=by))


@router.delete("/roles/{role_id}", status_code=204, dependencies=[Depends(can_write_roles)])
async def delete_role(role_id: RowId, db: DBSession, services: Services, by: RoleAdmin) -> None:
    """Delete a role that no account has."""
    await services.roles.delete(role_id, db=db, by=by)


@router.get("/users/{user_id:int}/roles", dependencies=[Depends(can_read_grants)])
async def list_grants(user_id: RowId, db: DBSession, services: Services) -> Response[list[GrantRead]]:
    """The roles of an account; everybody may read their own."""
    return Response(data=await services.roles.get_grants(user_id, db=db))


@router.put("/users/{user_id:int}/roles/{name}", status_code=204, dependencies=[Depends(can_write_roles)])
async def grant_role(user_id: RowId, name: RoleName, db: DBSession, services: Services, by: RoleAdmin) -> None:
    """Give an account a role. The caller holds what the account and the role hold."""
    await services.roles.grant(user_id, name, db=db, by=by)


@router.delete("/users/{user_id:int}/roles/{name}", status_code=204, dependencies=[Depends(can_write_roles)])
async def revoke_role(user_id: RowId, name: RoleName, db: DBSession, services: Services, by: RoleAdmin) -> None:
    """Take a role from an account. The caller holds what the account and the role hold."""
    await services.roles.revoke(user_id, name, db=db, by=by)
