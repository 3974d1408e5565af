"""Administration of accounts."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi import Response as HTTPResponse
from fastapi.requests import HTTPConnection

from app.auth.deps import CurrentUser, Services, open_before_password_change
from app.auth.policies import Policy, can_list_users, can_read_user, can_write_users
from app.auth.schemas.auth import SessionRead
from app.auth.schemas.user import UserCreate, UserFilterParam, UserListParams, UserResponse, UserSortParam, UserUpdate
from app.auth.services.accounts import Administrator
from app.core.api import ListParamsBuilder, PaginatedResponse, Response
from app.core.api.inputs import RowId
from app.core.deps import CurrentPrincipal, DBSession, authenticate

router = APIRouter(prefix="/users", tags=["users"])

list_params = ListParamsBuilder(UserListParams, UserSortParam, UserFilterParam)


def administrator(may_write: Policy) -> Any:
    """Return the dependency that gives the administrator who sent the request."""

    async def sender(connection: HTTPConnection, principal: CurrentPrincipal) -> Administrator:
        return Administrator(principal, lambda db: authenticate(connection, db=db), may_write)

    return Depends(sender)


UserAdmin = Annotated[Administrator, administrator(can_write_users)]


@router.get("", dependencies=[Depends(can_list_users)])
async def list_users(
    params: Annotated[UserListParams, Depends(list_params)],
    db: DBSession,
    services: Services,
    request: Request,
    response: HTTPResponse,
) -> PaginatedResponse[UserResponse]:
    """A page of the accounts."""
    return PaginatedResponse.of(await services.users.get_list(params, db=db), request, response)


@router.post("", status_code=201, dependencies=[Depends(can_write_users)])
async def create_user(body: UserCreate, db: DBSession, services: Services, by: UserAdmin) -> Response[UserResponse]:
    """Make an account."""
    return Response(data=await services.users.create(body, db=db, by=by))


@router.get("/me")
@open_before_password_change
async def read_me(user: CurrentUser) -> Response[UserResponse]:
    """The caller's account, as `GET /profile`."""
    return Response(data=user)


@router.get("/{user_id:int}", dependencies=[Depends(can_read_user)])
async def read_user(user_id: RowId, db: DBSession, services: Services) -> Response[UserResponse]:
    """One account; everybody may read their own."""
    return Response(data=await services.users.get(user_id, db=db))


@router.patch("/{user_id:int}", dependencies=[Depends(can_write_users)])
async def update_user(
    user_id: RowId, body: UserUpdate, db: DBSession, services: Services, by: UserAdmin
) -> Response[UserResponse]:
    """Change an account. Disabling it, or giving it another address, ends its sessions."""
    return Response(data=await services.users.update(user_id, body, db=db, by=by))


@router.delete("/{user_id:int}", status_code=204, dependencies=[Depends(can_write_users)])
async def delete_user(user_id: RowId, db: DBSession, services: Services, by: UserAdmin) -> None:
    """Delete an account and end its sessions."""
    await services.users.delete(user_id, db=db, by=by)


@router.get("/{user_id:int}/sessions", dependencies=[Depends(can_list_users)])
async def list_sessions(
    user_id: RowId, db: DBSession, services: Services, principal: CurrentPrincipal
) -> Response[list[SessionRead]]:
    """The live sessions of an account, the latest used first."""
    return Response(data=await services.sessions.get_list(user_id, db=db, current_id=principal.session_id))


@router.delete("/{user_id:int}/sessions", status_code=204, dependencies=[Depends(can_write_users)])
async def end_sessions(user_id: RowId, db: DBSession, services: Services, by: UserAdmin) -> None:
    """End every session of an account and void its links."""
    await services.users.end_sessions(user_id, db=db, by=by)
