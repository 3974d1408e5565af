"""Routes of keys, of their access tokens, and of service accounts."""

import base64
from typing import Annotated, Any
from urllib.parse import unquote_plus

from fastapi import APIRouter, Depends, Query, Request, status
from fastapi import Response as HTTPResponse
from fastapi.security.utils import get_authorization_scheme_param

from app.api_keys.deps import ApiKeys
from app.api_keys.exceptions import InvalidApiKey, InvalidTokenRequest
from app.api_keys.permissions import READ
from app.api_keys.schemas import (
    ApiKeyCreate,
    ApiKeyFilterParam,
    ApiKeyListParams,
    ApiKeyRead,
    ApiKeySortParam,
    NewApiKey,
    Rotation,
    ServiceAccountCreate,
    TokenAnswer,
    TokenForm,
)
from app.auth import ActiveUser, UserResponse, requires_permission
from app.auth.deps import Reauthenticate, current_caller, guesses, reauthentication
from app.core.api import ConfigurableRateLimiter, ListParamsBuilder, PaginatedResponse, Response, public
from app.core.api.input_guard import URLENCODED
from app.core.api.inputs import RowId
from app.core.api.problems import problem
from app.core.deps import DBSession

can_read_keys = requires_permission(READ)
can_write_users = requires_permission("users:write")

# Who has logged in looks after keys: a key makes no key.
keys = APIRouter(prefix="/api-keys", dependencies=[Depends(current_caller)])
router_v1 = APIRouter(tags=["api_keys"])

list_params = ListParamsBuilder(ApiKeyListParams, ApiKeySortParam, ApiKeyFilterParam)
Confirm = Annotated[Reauthenticate, Depends(reauthentication)]


async def no_store(response: HTTPResponse) -> None:
    """Forbid to store an answer with a secret."""
    response.headers["Cache-Control"] = "no-store"


@keys.get("")
async def list_keys(
    params: Annotated[ApiKeyListParams, Depends(list_params)],
    db: DBSession,
    service: ApiKeys,
    *,
    user: ActiveUser,
    request: Request,
    response: HTTPResponse,
    owner_id: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> PaginatedResponse[ApiKeyRead]:
    """A page of the caller's keys, or with `api_keys:read` of those of `owner_id`."""
    if owner_id not in (None, user.id):
        await can_read_keys(user)
    page = await service.get_list(params, db=db, owner_id=owner_id or user.id)
    return PaginatedResponse.of(page, request, response)


@keys.post("", status_code=status.HTTP_201_CREATED, dependencies=[Depends(no_store), guesses])
async def create_key(
    body: ApiKeyCreate, db: DBSession, service: ApiKeys, user: ActiveUser, confirm: Confirm
) -> Response[NewApiKey]:
    """Make a key; only this answer shows it."""
    await confirm(body.current_password)
    return Response(data=await service.create(body, db=db, by=user))


@keys.get("/{api_key_id:int}")
async def read_key(api_key_id: RowId, db: DBSession, service: ApiKeys, user: ActiveUser) -> Response[ApiKeyRead]:
    """One key."""
    return Response(data=await service.get(api_key_id, db=db, by=user))


@keys.post("/{api_key_id:int}/rotate", dependencies=[Depends(no_store), guesses])
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


async def token_form(request: Request) -> TokenForm:
    """Read the form; the client's id and secret may be in `Authorization: Basic` (RFC 6749 section 2.3.1)."""
    async with request.form() as form:
        fields: dict[str, Any] = {name: value for name, value in form.items() if value != ""}
    if fields.get("grant_type", "client_credentials") != "client_credentials":
        raise InvalidTokenRequest("unsupported_grant_type")
    try:
        scheme, encoded = get_authorization_scheme_param(request.headers.get("authorization"))
        if scheme:
            pair = base64.b64decode((scheme.lower() == "basic" and encoded) or "?", validate=True).decode()
            fields["client_id"], _, fields["client_secret"] = map(unquote_plus, pair.partition(":"))
        return TokenForm.model_validate(fields)
    except ValueError as exc:  # pydantic's, too
        raise InvalidTokenRequest from exc


TOKEN_CONTENT = {URLENCODED: {"schema": TokenForm.model_json_schema()}}


@router_v1.post(
    "/api-keys/token",
    response_model=TokenAnswer,
    dependencies=[public, Depends(no_store), Depends(ConfigurableRateLimiter(times=30, seconds=60))],
    openapi_extra={"requestBody": {"required": True, "content": TOKEN_CONTENT}},
    max_body_size=16 * 1024,
)
async def create_token(
    form: Annotated[TokenForm, Depends(token_form)], db: DBSession, service: ApiKeys, request: Request
) -> TokenAnswer | HTTPResponse:
    """Exchange a key for an access token of 15 minutes: the OAuth2 client credentials grant."""
    try:
        return await service.exchange(form, db=db)
    except InvalidApiKey as refused:
        headers = {"WWW-Authenticate": "Basic", "Cache-Control": "no-store"}  # RFC 6749 section 5.2
        return problem(
            request.scope, 401, refused.code, refused.detail, headers=headers, extra={"error": "invalid_client"}
        )


@router_v1.post("/service-accounts", status_code=status.HTTP_201_CREATED, dependencies=[Depends(can_write_users)])
async def create_service_account(
    body: ServiceAccountCreate, db: DBSession, service: ApiKeys, user: ActiveUser
) -> Response[UserResponse]:
    """Make an account that nobody can log in to; its keys are made with `owner_id`."""
    return Response(data=await service.create_service_account(body.username, db=db, by=user))


router_v1.include_router(keys)
