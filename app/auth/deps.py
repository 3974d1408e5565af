"""Dependencies of routes in this and other modules: the caller, the services, the gateway."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, TypeAlias, TypeVar

from fastapi import Depends
from fastapi.requests import HTTPConnection
from fastapi.security import OAuth2PasswordBearer

from app.auth.config import AuthConfig, get_auth_config
from app.auth.emails.service import Links
from app.auth.events import RequestOrigin, SecurityEvents
from app.auth.exceptions import AccountNotActive, InvalidAccessToken, PasswordChangeRequired
from app.auth.gateway import AuthGatewayInterface, get_gateway
from app.auth.repositories import UserRepository
from app.auth.schemas.user import UserDTO
from app.auth.services.accounts import is_usable
from app.auth.services.registration import RecoveryService, RegistrationService
from app.auth.services.sessions import SessionService
from app.auth.services.user import ProfileService, UserService
from app.core.api.input_guard import client_left
from app.core.configs import app_config, get_settings
from app.core.deps import DBSession, EventsService, MailService, QueueService, configured, short_unit
from app.core.exceptions import AuthenticationError
from app.core.identity import AUTHENTICATED, admits, identifies_caller, remember_principal
from app.core.services.log.context import conversation_id, request_id

# No refreshUrl: RFC 6749 refreshes by form, ours is a JSON body.
oauth2_scheme = OAuth2PasswordBearer(tokenUrl=f"{app_config.API_V1_STR}/auth/login", auto_error=False)


async def auth_config(connection: HTTPConnection) -> AuthConfig:
    """Return the module's settings, or their override in `app.dependency_overrides[get_auth_config]`."""
    return configured(connection, get_auth_config)


Config = Annotated[AuthConfig, Depends(auth_config)]

F = TypeVar("F", bound=Callable[..., Any])
_OPEN_BEFORE_CHANGE: set[Callable[..., Any]] = set()


def open_before_password_change(endpoint: F) -> F:
    """Mark one of the few routes of a caller who must change the password first; write it below `@router...`."""
    _OPEN_BEFORE_CHANGE.add(endpoint)
    return endpoint


class Caller(NamedTuple):
    """The user who sent the request, and the session of the access token."""

    user: UserDTO
    session_id: int


@identifies_caller
@short_unit
async def optional_caller(
    connection: HTTPConnection, db: DBSession, config: Config, token: Annotated[str | None, Depends(oauth2_scheme)]
) -> Caller | None:
    """Return the caller by access token, None without one. One statement reads session and user: both must be alive."""
    if token is None:
        return None
    claims = config.access_tokens.read(token)
    session_id = int(claims.sid)
    user = await UserRepository().principal(db=db, user_id=int(claims.sub), session_id=session_id)
    if user is None:
        raise InvalidAccessToken
    remember_principal(connection, f"user:{user.id}")
    if user.password_change_required and connection.scope.get("endpoint") not in _OPEN_BEFORE_CHANGE:
        raise PasswordChangeRequired
    return Caller(user, session_id)


OptionalCaller = Annotated[Caller | None, Depends(optional_caller)]


@admits(AUTHENTICATED)
async def current_caller(caller: OptionalCaller) -> Caller:
    """Return the caller by access token; raises AuthenticationError without one."""
    if caller is None:
        raise AuthenticationError
    return caller


CurrentCaller = Annotated[Caller, Depends(current_caller)]


async def current_user(caller: CurrentCaller) -> UserDTO:
    """Return the user who sent the request."""
    return caller.user


CurrentUser: TypeAlias = Annotated[UserDTO, Depends(current_user)]


async def optional_user(caller: OptionalCaller) -> UserDTO | None:
    """Return the user who sent the request, None without a token; an invalid token is refused."""
    return caller.user if caller else None


OptionalUser: TypeAlias = Annotated[UserDTO | None, Depends(optional_user)]


async def active_user(user: CurrentUser, config: Config) -> UserDTO:
    """Return the user who sent the request; raises AccountNotActive where disabled or waiting for verification."""
    if not is_usable(user, config):
        raise AccountNotActive
    return user


ActiveUser: TypeAlias = Annotated[UserDTO, Depends(active_user)]


@dataclass(frozen=True, kw_only=True)
class AuthServices:
    """The services of this module, composed for one request."""

    sessions: SessionService
    registration: RegistrationService
    recovery: RecoveryService
    profile: ProfileService
    users: UserService


async def auth_services(
    connection: HTTPConnection, config: Config, events: EventsService, mail: MailService, queue: QueueService
) -> AuthServices:
    """Compose the services of one request."""
    settings = configured(connection, get_settings)
    origin = _origin_of(connection)
    common: dict[str, Any] = {"config": config, "events": SecurityEvents(events=events, origin=origin), "mail": mail}
    common |= {"links": Links(settings), "disconnected": client_left(connection)}
    return AuthServices(
        sessions=SessionService(**common, keys=settings.secret_keys, origin=origin),
        registration=RegistrationService(**common),
        recovery=RecoveryService(**common, queue=queue),
        profile=ProfileService(**common, queue=queue),
        users=UserService(**common, queue=queue),
    )


def _origin_of(connection: HTTPConnection) -> RequestOrigin:
    """Return where the request comes from, trimmed to what a row keeps."""
    agent = "".join(character for character in connection.headers.get("user-agent", "") if character.isprintable())
    return RequestOrigin(
        address=connection.client.host[:64] if connection.client else None,
        user_agent=agent[:200] or None,
        request_id=request_id(),
        conversation_id=conversation_id(),
    )


Services: TypeAlias = Annotated[AuthServices, Depends(auth_services)]
AuthGateway: TypeAlias = Annotated[AuthGatewayInterface, Depends(get_gateway)]
