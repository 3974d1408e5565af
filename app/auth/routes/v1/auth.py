"""Registering, logging in and out, and the mailed links."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi import Response as HTTPResponse
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from app.auth.deps import Config, CurrentCaller, OwnSession, Services, open_before_password_change
from app.auth.routes.v1.profile import confirmed
from app.auth.schemas.auth import (
    Accepted,
    AddressRequest,
    Confirmation,
    KeySet,
    LinkToken,
    LoginAnswer,
    LoginBody,
    LoginForm,
    PasswordReset,
    RefreshRequest,
    Registration,
    TokenAnswer,
)
from app.auth.schemas.user import UserResponse
from app.core.api import ConfigurableRateLimiter, Response, public
from app.core.api.input_guard import JSON, URLENCODED, is_json, media_type
from app.core.api.middlewares import arrived_at
from app.core.deps import DBSession

router = APIRouter(prefix="/auth", tags=["auth"], max_body_size=16 * 1024)
well_known = APIRouter(tags=["auth"], dependencies=[public])  # outside the API's prefix: RFC 8615

ACCEPTED = Accepted(detail="If the address can be used, a mail is on its way.")


def per_minute(times: int) -> Any:
    """Limit a route to so many requests a minute for each client."""
    return Depends(ConfigurableRateLimiter(times=times, seconds=60))


@router.post(
    "/register",
    status_code=201,
    responses={
        201: {"model": Response[UserResponse]},
        202: {"model": Response[Accepted], "description": "The address has to be verified: see its mailbox"},
    },
    dependencies=[public, per_minute(5)],
)
async def register(
    body: Registration, db: DBSession, services: Services, response: HTTPResponse
) -> Response[UserResponse | Accepted]:
    """Make an account. Where addresses must be verified the answer is 202, for a taken address too."""
    user = await services.registration.register(body, db=db)
    if user is None:
        response.status_code = 202
        return Response(data=ACCEPTED)
    return Response(data=user)


async def login_form(request: Request) -> LoginForm:
    """Read the login as a form or as JSON: FastAPI reads one content type per operation."""
    try:
        if is_json(media_type(request.headers.get("content-type", ""))):
            return LoginBody.model_validate_json(await request.body()).as_form()
        async with request.form() as fields:
            return LoginForm.model_validate({name: value for name, value in fields.items() if value != ""})
    except ValidationError as exc:
        faults = exc.errors(include_url=False, include_input=False)
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in faults]) from exc


LOGIN_CONTENT = {
    URLENCODED: {"schema": LoginForm.model_json_schema()},
    JSON: {"schema": LoginBody.model_json_schema()},
}


@router.post(
    "/login",
    dependencies=[public, per_minute(5)],
    responses={422: {}},
    openapi_extra={"requestBody": {"required": True, "content": LOGIN_CONTENT}},
)
async def login(form: Annotated[LoginForm, Depends(login_form)], db: DBSession, services: Services) -> LoginAnswer:
    """Log in with e-mail address or user name: the OAuth2 password grant as a form, or JSON."""
    return await services.sessions.login(form, db=db)


@router.post("/refresh-token", dependencies=[public, per_minute(30)])
async def refresh_token(body: RefreshRequest, db: DBSession, services: Services, request: Request) -> TokenAnswer:
    """Exchange a refresh token for the next one. Using one twice ends the session."""
    return await services.sessions.refresh(body.refresh_token, db=db, arrived_at=arrived_at(request))


@router.post("/logout", status_code=204)
@open_before_password_change
async def logout(db: DBSession, services: Services, caller: OwnSession) -> None:
    """End this session."""
    await services.sessions.logout(caller, db=db)


@router.post("/logout-all", status_code=204, dependencies=confirmed)
@open_before_password_change
async def logout_all(
    db: DBSession, services: Services, caller: CurrentCaller, body: Confirmation | None = None
) -> None:
    """End every session of the caller. A login more than 15 minutes old needs `current_password`."""
    await services.sessions.end_all(caller, body.current_password if body else None, db=db)


@router.post("/restore-password", status_code=202, dependencies=[public, per_minute(5)])
async def restore_password(body: AddressRequest, db: DBSession, services: Services) -> Response[Accepted]:
    """Have a link for a new password mailed; the answer is the same for every address."""
    await services.recovery.request_reset(body.email, db=db)
    return Response(data=ACCEPTED)


@router.post("/reset-password", status_code=204, dependencies=[public, per_minute(10)])
async def reset_password(body: PasswordReset, db: DBSession, services: Services) -> None:
    """Set a new password with the token of a mailed link. Every session ends."""
    await services.recovery.reset_password(body, db=db)


@router.post("/verify-email", status_code=204, dependencies=[public, per_minute(10)])
async def verify_email(body: LinkToken, db: DBSession, services: Services) -> None:
    """Verify an address with the token of a mailed link."""
    await services.recovery.verify_email(body.token, db=db)


@router.post("/resend-verification", status_code=202, dependencies=[public, per_minute(5)])
async def resend_verification(body: AddressRequest, db: DBSession, services: Services) -> Response[Accepted]:
    """Have the verification link mailed again; the answer is the same for every address."""
    await services.recovery.request_verification(body.email, db=db)
    return Response(data=ACCEPTED)


@well_known.get("/.well-known/jwks.json")
async def read_keys(config: Config, response: HTTPResponse) -> KeySet:
    """The public keys that verify access tokens; none where they are signed with HS256."""
    response.headers["Cache-Control"] = "public, max-age=300"
    return KeySet(keys=config.access_tokens.public_keys())
