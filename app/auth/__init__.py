"""Accounts, sessions and tokens: who is calling, and what they may do."""

from app.auth.deps import ActiveUser, AuthGateway, CurrentUser, auth_gateway, current_user
from app.auth.events import (
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
from app.auth.gateway import AuthGatewayInterface
from app.auth.policies.permissions import requires_permission
from app.auth.routers import router_v1
from app.auth.schemas.user import UserDTO

__all__ = [
    "ActiveUser",
    "AuthGateway",
    "AuthGatewayInterface",
    "CurrentUser",
    "EmailAddressChanged",
    "EmailAddressVerified",
    "LoggedOut",
    "LoggedOutEverywhere",
    "LoginFailed",
    "LoginSucceeded",
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
    "UserStatusChanged",
    "UserUpdated",
    "auth_gateway",
    "current_user",
    "requires_permission",
    "router_v1",
]
