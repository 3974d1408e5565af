"""Routes of keys, of their access tokens, and of service accounts."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, status
from fastapi import Response as HTTPResponse
from fastapi.security import HTTPBasic
from pydantic import SecretStr

from app.api_keys.deps import ApiKeys
from app.api_keys.exceptions import InvalidApiKey
from app.api_keys.schemas import ApiKeyCreate, ApiKeyRead, NewApiKey, Rotation, ServiceAccount, TokenAnswer, TokenForm
from app.auth import ActiveUser, UserResponse, requires_permission
from app.auth.deps import Reauthenticate, current_caller, guesses, reauthentication
from app.core.api import ConfigurableRateLimiter, PaginatedResponse, Response, public
from app.core.api.inputs import RowId
from app.core.api.problems import problem
from app.core.db.list_params import MAX_PAGE
from app.core.deps import DBSession

can_write_users = requires_permission("users:write")

# Who has logged in looks after keys: a key makes no key.
keys = APIRouter(prefix="/api-keys", dependencies=[Depends(current_caller)])
router_v1 = APIRouter(tags=["api_keys"])

basic = HTTPBasic(auto_error=False)
Confirm = Annotated[Reauthenticate, Depends(reauthentication)]


@keys.get("")
async def list_keys(
    db: DBSession,
    service: ApiKeys,
    *,
    user: ActiveUser,
    request: Request,
    response: HTTPResponse,
    owner_id: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    page: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1,
) -> PaginatedResponse[ApiKeyRead]:
    """A page of the caller's keys, or with `api_keys:read` of those of `owner_id`, the latest first."""
    found = await service.get_list(page, db=db, owner_id=owner_id or user.id, by=user)
    return PaginatedResponse.of(found, request, response)


@keys.post("", status_code=status.HTTP_201_CREATED, dependencies=[guesses])
async def create_key(
    body: ApiKeyCreate, db: DBSession, service: ApiKeys, user: ActiveUser, confirm: Confirm
) -> Response[NewApiKey]:
    """Make a key; only this answer shows it."""
    await confirm(body.current_password)
    return Response(data=await service.create(body, db=db, by=user))


@keys.post("/{api_key_id:int}/rotate", dependencies=[guesses])
async def rotate_key(
    api_key_id: RowId, body: Rotation, db: DBSession, service: ApiKeys, *, user: ActiveUser, confirm: Confirm
) -> Response[NewApiKey]:
    """Give a key another secret, which only this answer shows; the present one stays valid for `overlap_seconds`."""
    await confirm(body.current_password)
    return Response(data=await service.rotate(api_key_id, body, db=db, by=user))


@keys.delete("/{api_key_id:int}", status_code=status.HTTP_204_NO_CONTENT)
async def revoke_key(api_key_id: RowId, db: DBSession, service: ApiKeys, user: ActiveUser) -> None:
    """End a key and its access tokens now; with `api_keys:write` another's too."""
    await service.revoke(api_key_id, db=db, by=user)


@router_v1.post(
    "/api-keys/token",
    response_model=TokenAnswer,
    dependencies=[public, Depends(ConfigurableRateLimiter(times=30, seconds=60))],
    max_body_size=16 * 1024,
)
async def create_token(
    form: Annotated[TokenForm, Form()], db: DBSession, service: ApiKeys, request: Request
) -> TokenAnswer | HTTPResponse:
    """Exchange a key for an access token of 15 minutes: the OAuth2 client credentials grant."""
    try:
        if client := await basic(request):  # RFC 6749 section 2.3.1
            form.client_id, form.client_secret = client.username, SecretStr(client.password)
        return await service.exchange(form, db=db)
    except (HTTPException, InvalidApiKey):  # of a header that is no Basic, too
        headers, extra = {"WWW-Authenticate": "Basic"}, {"error": "invalid_client"}  # section 5.2
        code, detail = InvalidApiKey.code, InvalidApiKey.default_detail
        return problem(request.scope, 401, code, detail, headers=headers, extra=extra)


@router_v1.post("/service-accounts", status_code=status.HTTP_201_CREATED, dependencies=[Depends(can_write_users)])
async def create_service_account(
    body: ServiceAccount, db: DBSession, service: ApiKeys, user: ActiveUser
) -> Response[UserResponse]:
    """Make an account that nobody can log in to; its keys are made with `owner_id`."""
    return Response(data=await service.create_service_account(body.username, db=db, by=user))


router_v1.include_router(keys)
