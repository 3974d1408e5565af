"""Dependencies of routes in this and other modules: the caller, the services, the gateway."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeAlias, TypeVar

from fastapi import Depends
from fastapi.requests import HTTPConnection
from fastapi.security import SecurityScopes
from pydantic import SecretStr

from app.auth.config import AuthConfig, get_auth_config
from app.auth.emails.service import Links
from app.auth.events import RequestOrigin, SecurityEvents
from app.auth.exceptions import AccountNotActive, ActionNotAllowed, SessionRequired
from app.auth.gateway import AuthGatewayInterface, get_gateway
from app.auth.schemas.user import UserDTO
from app.auth.services.accounts import Caller, is_usable
from app.auth.services.registration import RecoveryService, RegistrationService
from app.auth.services.roles import RoleService
from app.auth.services.sessions import SessionService
from app.auth.services.throttling import AccountLimits
from app.auth.services.user import ProfileService, UserService
from app.core.api import ConfigurableRateLimiter
from app.core.api.input_guard import client_left
from app.core.configs import get_settings
from app.core.deps import (
    CurrentPrincipal,
    DBSession,
    EventsService,
    MailService,
    OptionalPrincipal,
    QueueService,
    configured,
)
from app.core.identity import Principal
from app.core.services.log.context import conversation_id, request_id


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


def is_open_before_password_change(connection: HTTPConnection) -> bool:
    """Check if the route of the request is marked by `open_before_password_change`."""
    return connection.scope.get("endpoint") in _OPEN_BEFORE_CHANGE


Reauthenticate: TypeAlias = Callable[[SecretStr | None], Awaitable[None]]


async def own_session(principal: CurrentPrincipal) -> Caller:
    """Return the caller who has logged in, however narrow the token; raises SessionRequired for a key."""
    if principal.session_id is None:
        raise SessionRequired
    return Caller(principal.user, principal.session_id)


OwnSession = Annotated[Caller, Depends(own_session)]


async def current_caller(caller: OwnSession, principal: CurrentPrincipal) -> Caller:
    """Return the caller who has logged in and may manage the account; raises SessionRequired for a narrowed token."""
    if principal.scope is not None:
        raise SessionRequired
    return caller


CurrentCaller = Annotated[Caller, Depends(current_caller)]


async def current_user(principal: CurrentPrincipal, scopes: SecurityScopes) -> UserDTO:
    """Return the user who sent the request; raises ActionNotAllowed without the scopes of a `Security` around it."""
    return _within(principal, scopes)


CurrentUser: TypeAlias = Annotated[UserDTO, Depends(current_user)]


async def optional_user(principal: OptionalPrincipal, scopes: SecurityScopes) -> UserDTO | None:
    """Return the user who sent the request, None without a credential; an invalid one is refused."""
    return _within(principal, scopes) if principal else None


OptionalUser: TypeAlias = Annotated[UserDTO | None, Depends(optional_user)]


def _within(principal: Principal, scopes: SecurityScopes) -> UserDTO:
    if missing := [scope for scope in scopes.scopes if scope not in principal.permissions]:
        raise ActionNotAllowed(missing=missing[0])
    user: UserDTO = principal.user
    return user


async def active_user(user: CurrentUser, config: Config) -> UserDTO:
    """Return the user who sent the request; raises AccountNotActive where disabled or waiting for verification."""
    if not is_usable(user, config):
        raise AccountNotActive
    return user


ActiveUser: TypeAlias = Annotated[UserDTO, Depends(active_user)]


async def security_events(connection: HTTPConnection, events: EventsService) -> SecurityEvents:
    """Return the events service that adds the origin of the request, for security events of other modules too."""
    return SecurityEvents(events=events, origin=origin_of(connection))


class AuthServices:
    """The services of this module, composed for one request."""

    def __init__(self, *, keys: Sequence[SecretStr], origin: RequestOrigin, **common: Any) -> None:
        self.sessions = SessionService(**common, keys=keys, origin=origin)
        self.registration = RegistrationService(**common)
        self.recovery = RecoveryService(**common)
        self.profile = ProfileService(**common)
        self.users = UserService(**common)
        self.roles = RoleService(**common)


async def auth_services(
    connection: HTTPConnection, config: Config, events: EventsService, mail: MailService, queue: QueueService
) -> AuthServices:
    """Compose the services of one request."""
    settings = configured(connection, get_settings)
    located = await security_events(connection, events)
    return AuthServices(
        config=config,
        events=located,
        mail=mail,
        queue=queue,
        links=Links(settings),
        limits=AccountLimits(settings.RATE_LIMITER_ENABLED),
        disconnected=client_left(connection),
        keys=settings.secret_keys,
        origin=located.origin,
    )


def origin_of(connection: HTTPConnection) -> RequestOrigin:
    """Return where the request comes from, trimmed to what a row keeps."""
    agent = "".join(character for character in connection.headers.get("user-agent", "") if character.isprintable())
    return RequestOrigin(
        address=connection.client.host[:64] if connection.client else None,
        user_agent=agent[:200] or None,
        request_id=request_id(),
        conversation_id=conversation_id(),
    )


Services: TypeAlias = Annotated[AuthServices, Depends(auth_services)]

# A stolen access token must not be a way to guess the password: guesses count for the user, wherever they come from.
guesses = Depends(ConfigurableRateLimiter(times=10, seconds=60, name="current-password"))


async def reauthentication(caller: CurrentCaller, db: DBSession, services: Services) -> Reauthenticate:
    """Return what is called with the caller's password, or None, before a change that a stolen token must not make.

    It raises ReauthenticationRequired where there is none and the login is not recent. Goes with `guesses`.
    """
    return lambda password: services.sessions.reauthenticate(caller, password, db=db)


AuthGateway: TypeAlias = Annotated[AuthGatewayInterface, Depends(get_gateway)]
