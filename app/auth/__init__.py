"""Accounts, sessions and tokens: who is calling, and what they may do."""

from app.auth.deps import ActiveUser, AuthGateway, CurrentUser, auth_gateway, current_user
from app.auth.events import UserCreated, UserDeleted
from app.auth.routers import router_v1
from app.auth.schemas.users import UserDTO

__all__ = [
    "ActiveUser",
    "AuthGateway",
    "CurrentUser",
    "UserCreated",
    "UserDTO",
    "UserDeleted",
    "auth_gateway",
    "current_user",
    "router_v1",
]
