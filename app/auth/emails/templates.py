"""What each mail shows. Those whose `url` has a token hold a secret: a task sends them, they are never queued."""

from pathlib import Path

from pydantic import Field

from app.core.services.mail import BaseTemplate

_VIEWS = Path(__file__).parent / "views"


class AuthTemplate(BaseTemplate):
    """Base of the mails of this module."""

    project: str = Field(examples=["Example"])
    username: str | None = Field(default=None, examples=["ann"])

    def _get_dir(self) -> Path:
        return _VIEWS


class Welcome(AuthTemplate):
    """To a new account; with a link while its address is not verified."""

    url: str | None = Field(examples=["https://example.com/verify-email#token=sample"])

    def _get_name(self) -> str:
        return "welcome.html"


class VerifyEmail(AuthTemplate):
    """A link that verifies an address."""

    url: str = Field(examples=["https://example.com/verify-email#token=sample"])
    hours: int = Field(examples=[48])

    def _get_name(self) -> str:
        return "verify_email.html"


class ResetPassword(AuthTemplate):
    """A link that sets a new password."""

    url: str = Field(examples=["https://example.com/reset-password#token=sample"])
    minutes: int = Field(examples=[60])

    def _get_name(self) -> str:
        return "reset_password.html"


class EmailChanged(AuthTemplate):
    """To the old address: the account has another one now."""

    new_email: str = Field(examples=["ann.new@example.com"])

    def _get_name(self) -> str:
        return "email_changed.html"


class EmailChangeRequested(EmailChanged):
    """To the present address: somebody asked for another one."""

    def _get_name(self) -> str:
        return "email_change_requested.html"


class PasswordReplaced(AuthTemplate):
    """To an account whose password is another one now."""

    url: str = Field(examples=["https://example.com/forgot-password"])

    def _get_name(self) -> str:
        return "password_replaced.html"


class SuperuserGranted(AuthTemplate):
    """To an account that was made a superuser."""

    def _get_name(self) -> str:
        return "superuser_granted.html"


class AddressTaken(AuthTemplate):
    """To the owner of an address that somebody tried to register again."""

    url: str = Field(examples=["https://example.com/forgot-password"])

    def _get_name(self) -> str:
        return "address_taken.html"


class UsernameNotFree(AuthTemplate):
    """To somebody whose registration failed on the user name, where the API may not say so."""

    def _get_name(self) -> str:
        return "username_not_free.html"
