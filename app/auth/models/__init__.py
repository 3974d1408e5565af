"""The tables of this module."""

from app.auth.models.session import AuthSession, EndReason, RefreshToken
from app.auth.models.token import OneTimeToken, Purpose
from app.auth.models.user import User, UserStatus

__all__ = ["AuthSession", "EndReason", "OneTimeToken", "Purpose", "RefreshToken", "User", "UserStatus"]
