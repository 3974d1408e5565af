"""Accounts, sessions and tokens: who is calling, and what they may do."""

from app.auth.deps import ActiveUser, AuthGateway, CurrentUser, OptionalUser, current_user
from app.auth.events import (
    AccessRefused,
    CredentialEvent,
    CredentialRefused,
    EmailAddressChanged,
    EmailAddressVerified,
    LoggedOut,
    LoggedOutEverywhere,
    LoginFailed,
    LoginSucceeded,
    PasswordChanged,
    PasswordConfirmationFailed,
    PasswordResetCompleted,
    PasswordResetRequested,
    RefreshTokenReused,
    SecurityEvent,
    SessionRevoked,
    SuperuserChanged,
    UserCreated,
    UserDeleted,
    UserStatusChanged,
    UserUpdated,
)
from app.auth.exceptions import ActionNotAllowed
from app.auth.gateway import AuthGatewayInterface, auth_gateway, get_gateway
from app.auth.models import UserStatus
from app.auth.policies import requires_permission, requires_role
from app.auth.routers import router_v1
from app.auth.schemas.user import UserDTO

__all__ = [
    "AccessRefused",
    "ActionNotAllowed",
    "ActiveUser",
    "AuthGateway",
    "AuthGatewayInterface",
    "CredentialEvent",
    "CredentialRefused",
    "CurrentUser",
    "EmailAddressChanged",
    "EmailAddressVerified",
    "LoggedOut",
    "LoggedOutEverywhere",
    "LoginFailed",
    "LoginSucceeded",
    "OptionalUser",
    "PasswordChanged",
    "PasswordConfirmationFailed",
    "PasswordResetCompleted",
    "PasswordResetRequested",
    "RefreshTokenReused",
    "SecurityEvent",
    "SessionRevoked",
    "SuperuserChanged",
    "UserCreated",
    "UserDTO",
    "UserDeleted",
    "UserStatus",
    "UserStatusChanged",
    "UserUpdated",
    "auth_gateway",
    "current_user",
    "get_gateway",
    "requires_permission",
    "requires_role",
    "router_v1",
]
