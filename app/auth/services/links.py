"""The links in mails. They come from configuration alone: a Host header must not end up in a mail."""

from typing import Any

from app.auth.models import User
from app.core.configs import AppConfig


class Links:
    """Pages of the front end. The token is in the fragment, which browsers send to no server."""

    def __init__(self, settings: AppConfig) -> None:
        self.project = settings.PROJECT_NAME
        self._base = str(settings.FRONTEND_URL).rstrip("/")

    def greeting(self, user: User) -> dict[str, Any]:
        """The values that every mail to an account shows; the name only where the address is verified.

        Mail programs make links of names like `www.example.com`, and anybody can register anybody's address.
        """
        return {"project": self.project, "username": user.username if user.is_verified else None}

    def verify_email(self, token: str) -> str:
        """Where an address is verified."""
        return f"{self._base}/verify-email#token={token}"

    def reset_password(self, token: str) -> str:
        """Where a new password is set."""
        return f"{self._base}/reset-password#token={token}"

    def forgot_password(self) -> str:
        """Where a link for a new password is asked for."""
        return f"{self._base}/forgot-password"
