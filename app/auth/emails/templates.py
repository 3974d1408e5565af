"""What each mail shows. Those with a `url` hold a secret: a task sends them, they are never queued."""

from pathlib import Path

from app.core.services.mail import BaseTemplate

_VIEWS = Path(__file__).parent / "views"


class AuthTemplate(BaseTemplate):
    """Base of the mails of this module."""

    project: str
    username: str

    def _get_dir(self) -> Path:
        return _VIEWS


class Welcome(AuthTemplate):
    """To a new account; with a link while its address is not verified."""

    url: str | None

    def _get_name(self) -> str:
        return "welcome.html"


class VerifyEmail(AuthTemplate):
    """A link that verifies an address."""

    url: str
    hours: int

    def _get_name(self) -> str:
        return "verify_email.html"


class ResetPassword(AuthTemplate):
    """A link that sets a new password."""

    url: str
    minutes: int

    def _get_name(self) -> str:
        return "reset_password.html"


class EmailChanged(AuthTemplate):
    """To the old address: somebody asked for another one."""

    new_email: str

    def _get_name(self) -> str:
        return "email_changed.html"


class AddressTaken(AuthTemplate):
    """To the owner of an address that somebody tried to register again."""

    url: str

    def _get_name(self) -> str:
        return "address_taken.html"


class UsernameNotFree(AuthTemplate):
    """To somebody whose registration failed on the user name, where the API may not say so."""

    def _get_name(self) -> str:
        return "username_not_free.html"
