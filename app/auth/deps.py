"""What routes of this and other modules ask for: the caller, the services, the gateway."""

from typing import Annotated, NamedTuple, TypeAlias

from fastapi import Depends
from fastapi.requests import HTTPConnection
from fastapi.security import OAuth2PasswordBearer

from app.auth.config import AuthConfig, get_auth_config
from app.auth.emails.service import Links
from app.auth.events import Origin
from app.auth.exceptions import AccountNotActive, InvalidAccessToken
from app.auth.gateway import AuthGatewayInterface, get_gateway
from app.auth.repositories.sessions import RefreshTokenRepository, SessionRepository
from app.auth.repositories.tokens import OneTimeTokenRepository
from app.auth.repositories.users import UserRepository
from app.auth.schemas.user import UserDTO
from app.auth.services.accounts import AccountService, is_usable
from app.auth.services.credentials import CredentialService
from app.auth.services.login import LoginService
from app.auth.services.profile import ProfileService
from app.auth.services.recovery import RecoveryService
from app.auth.services.registration import RegistrationService
from app.auth.services.security_events import SecurityEvents
from app.auth.services.sessions import SessionService
from app.auth.services.user import UserService
from app.core.api.bodies import client_left
from app.core.configs import app_config, get_settings
from app.core.deps import DBSession, EventsService, MailService, QueueService, configured, short_unit
from app.core.exceptions import AuthenticationError
from app.core.identity import identifies_caller, remember_principal
from app.core.services.events import EventsServiceInterface
from app.core.services.log.context import conversation_id, request_id

# No refreshUrl: RFC 6749 refreshes by form, ours is a JSON body.
oauth2_scheme = OAuth2PasswordBearer(tokenUrl=f"{app_config.API_V1_STR}/auth/login", auto_error=False)


async def auth_config(connection: HTTPConnection) -> AuthConfig:
    """The module's settings, or what `app.dependency_overrides[get_auth_config]` says instead."""
    return configured(connection, get_auth_config)


Config = Annotated[AuthConfig, Depends(auth_config)]


class Caller(NamedTuple):
    """Who sent the request, and the login it belongs to."""

    user: UserDTO
    session_id: int


@identifies_caller
@short_unit
async def optional_caller(
    connection: HTTPConnection, db: DBSession, config: Config, token: Annotated[str | None, Depends(oauth2_scheme)]
) -> Caller | None:
    """The caller by access token, None without one. Session and user are read in one statement: both must be alive."""
    if token is None:
        return None
    claims = config.access_tokens.read(token)
    session_id = int(claims.sid)
    user = await UserRepository().principal(db=db, user_id=int(claims.sub), session_id=session_id)
    if user is None:
        raise InvalidAccessToken
    remember_principal(connection, f"user:{user.id}")
    return Caller(user, session_id)


OptionalCaller = Annotated[Caller | None, Depends(optional_caller)]


async def current_caller(caller: OptionalCaller) -> Caller:
    """The caller by access token; AuthenticationError without one."""
    if caller is None:
        raise AuthenticationError
    return caller


CurrentCaller = Annotated[Caller, Depends(current_caller)]


async def current_user(caller: CurrentCaller) -> UserDTO:
    """The user who sent the request."""
    return caller.user


CurrentUser: TypeAlias = Annotated[UserDTO, Depends(current_user)]


async def optional_user(caller: OptionalCaller) -> UserDTO | None:
    """The user who sent the request, None where no token came with it; a token that is not valid is refused."""
    return caller.user if caller else None


OptionalUser: TypeAlias = Annotated[UserDTO | None, Depends(optional_user)]


async def active_user(user: CurrentUser, config: Config) -> UserDTO:
    """The user who sent the request, whose account is neither disabled nor waiting for verification."""
    if not is_usable(user, verification_required=config.verification_required):
        raise AccountNotActive
    return user


ActiveUser: TypeAlias = Annotated[UserDTO, Depends(active_user)]


async def origin_of(connection: HTTPConnection) -> Origin:
    """Where the request comes from, trimmed to what a row keeps."""
    agent = "".join(character for character in connection.headers.get("user-agent", "") if character.isprintable())
    return Origin(
        address=connection.client.host[:64] if connection.client else None,
        user_agent=agent[:200] or None,
        request_id=request_id(),
        conversation_id=conversation_id(),
    )


RequestOrigin: TypeAlias = Annotated[Origin, Depends(origin_of)]


async def auth_events(events: EventsService, origin: RequestOrigin) -> EventsServiceInterface:
    """Tells listeners what happened to accounts, and where it came from."""
    return SecurityEvents(events=events, origin=origin)


AuthEvents: TypeAlias = Annotated[EventsServiceInterface, Depends(auth_events)]


async def credential_service(connection: HTTPConnection, config: Config, events: AuthEvents) -> CredentialService:
    """Checks passwords."""
    left = client_left(connection)
    return CredentialService(users=UserRepository(), hasher=config.password_hasher, events=events, left=left)


Credentials = Annotated[CredentialService, Depends(credential_service)]


async def session_service(
    connection: HTTPConnection, config: Config, events: AuthEvents, origin: RequestOrigin
) -> SessionService:
    """Opens, refreshes and ends sessions."""
    return SessionService(
        users=UserRepository(),
        sessions=SessionRepository(),
        refresh_tokens=RefreshTokenRepository(),
        access_tokens=config.access_tokens,
        secret=configured(connection, get_settings).secret_key,
        lifetime=config.session_lifetime,
        verification_required=config.verification_required,
        events=events,
        origin=origin,
    )


Sessions = Annotated[SessionService, Depends(session_service)]


async def login_service(credentials: Credentials, sessions: Sessions, events: AuthEvents) -> LoginService:
    """Exchanges passwords for sessions."""
    return LoginService(users=UserRepository(), credentials=credentials, sessions=sessions, events=events)


async def registration_service(
    connection: HTTPConnection, config: Config, credentials: Credentials, events: AuthEvents, mail: MailService
) -> RegistrationService:
    """Makes accounts for whoever asks."""
    return RegistrationService(
        users=UserRepository(),
        credentials=credentials,
        events=events,
        mail=mail,
        links=Links(configured(connection, get_settings)),
        allowed=config.USER_REGISTRATION_ALLOWED,
        verification_required=config.verification_required,
    )


async def account_service(
    connection: HTTPConnection, config: Config, events: AuthEvents, mail: MailService
) -> AccountService:
    """The rules for changing an account."""
    return AccountService(
        users=UserRepository(),
        sessions=SessionRepository(),
        events=events,
        mail=mail,
        links=Links(configured(connection, get_settings)),
        verification_required=config.verification_required,
    )


Accounts = Annotated[AccountService, Depends(account_service)]


async def recovery_service(
    credentials: Credentials, accounts: Accounts, queue: QueueService, events: AuthEvents
) -> RecoveryService:
    """Asks for mailed links and honours them."""
    return RecoveryService(
        users=UserRepository(),
        tokens=OneTimeTokenRepository(),
        credentials=credentials,
        accounts=accounts,
        queue=queue,
        events=events,
    )


async def profile_service(
    credentials: Credentials, accounts: Accounts, queue: QueueService, events: AuthEvents
) -> ProfileService:
    """Changes the caller's own account."""
    return ProfileService(
        users=UserRepository(), credentials=credentials, accounts=accounts, queue=queue, events=events
    )


async def user_service(
    credentials: Credentials, accounts: Accounts, events: AuthEvents, queue: QueueService
) -> UserService:
    """Administers accounts."""
    return UserService(
        users=UserRepository(),
        sessions=SessionRepository(),
        accounts=accounts,
        credentials=credentials,
        events=events,
        queue=queue,
    )


Logins = Annotated[LoginService, Depends(login_service)]
Registrations = Annotated[RegistrationService, Depends(registration_service)]
Recovery = Annotated[RecoveryService, Depends(recovery_service)]
Profiles = Annotated[ProfileService, Depends(profile_service)]
Users = Annotated[UserService, Depends(user_service)]
AuthGateway: TypeAlias = Annotated[AuthGatewayInterface, Depends(get_gateway)]
