"""Mail templates. Those whose `url` has a token hold a secret: a task sends them, they are never queued."""

from pydantic import BaseModel, Field

from app.core.services.mail import BaseTemplate


class AuthTemplate(BaseModel):
    """Base of the mails of this module."""

    project: str = Field(examples=["Example"])
    username: str | None = Field(default=None, examples=["ann"])


class Welcome(AuthTemplate, BaseTemplate):
    """To a new account; with a link while its address is not verified."""

    url: str | None = Field(examples=["https://example.com/verify-email#token=sample"])


class VerifyEmail(AuthTemplate, BaseTemplate):
    """A link that verifies an address."""

    url: str = Field(examples=["https://example.com/verify-email#token=sample"])
    hours: int = Field(examples=[24])


class ResetPassword(AuthTemplate, BaseTemplate):
    """A link that sets a new password."""

    url: str = Field(examples=["https://example.com/reset-password#token=sample"])
    minutes: int = Field(examples=[15])


class EmailChanged(AuthTemplate, BaseTemplate):
    """To the old address: the address of the account was changed."""

    new_email: str = Field(examples=["ann.new@example.com"])


class EmailChangeRequested(EmailChanged):
    """To the present address: a change of address was requested."""


class PasswordReplaced(AuthTemplate, BaseTemplate):
    """To an account whose password was changed."""

    url: str = Field(examples=["https://example.com/forgot-password"])


class NewSignIn(AuthTemplate, BaseTemplate):
    """To an account that was logged in to from an unknown device. Not its name: whoever logs in chooses that."""

    time: str = Field(examples=["2026-01-31 12:00 UTC"])
    network: str | None = Field(examples=["192.0.2.0/24"])
    url: str = Field(examples=["https://example.com/forgot-password"])


class SessionStolen(AuthTemplate, BaseTemplate):
    """To an account of which a refresh token was used twice."""

    url: str = Field(examples=["https://example.com/forgot-password"])


class SuperuserGranted(AuthTemplate, BaseTemplate):
    """To an account that was made a superuser."""


class AddressTaken(AuthTemplate, BaseTemplate):
    """To the owner of an address that somebody tried to register again."""

    url: str = Field(examples=["https://example.com/forgot-password"])


class UsernameNotFree(AuthTemplate, BaseTemplate):
    """To somebody whose registration failed on the user name, where the API may not say so."""
