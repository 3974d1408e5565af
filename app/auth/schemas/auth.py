"""Bodies and answers of signing in, of mailed links and of one's own account."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from app.auth.schemas.user import Email, GivenPassword, NewPassword, Token, Username
from app.core.api.inputs import Body, PatchBody

LoginName: TypeAlias = Annotated[str, Field(min_length=1, max_length=320, description="E-mail address or user name")]
LoginPassword: TypeAlias = Annotated[
    SecretStr, Field(min_length=1, max_length=4096, json_schema_extra={"format": "password"})
]
DeviceToken: TypeAlias = Annotated[SecretStr, Field(description="That of an earlier login of this account")]

Scope: TypeAlias = Annotated[
    str, Field(max_length=1000, description="Permissions, separated by spaces, that the tokens are narrowed to")
]


class Registration(Body):
    """A new account of one's own. Without `username` one is made from the address."""

    email: Email
    username: Username = Field(default_factory=str)  # a factory is not documented, and "" cannot be sent
    password: NewPassword


class LoginForm(BaseModel):
    """The password grant of RFC 6749 section 4.3.2, as a form; fields it does not know are ignored (section 3.2)."""

    grant_type: Literal["password"] = "password"
    username: LoginName
    password: LoginPassword
    device_token: DeviceToken | SkipJsonSchema[None] = None
    scope: Scope = Field(default_factory=str)


class LoginBody(Body):
    """The same as JSON, which needs no `grant_type`: `username` as in the form, or `email`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["email"]}, {"required": ["username"]}]})

    email: Email = Field(default_factory=str)
    username: LoginName = Field(default_factory=str)
    password: LoginPassword
    device_token: DeviceToken | SkipJsonSchema[None] = None
    scope: Scope = Field(default_factory=str)

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if bool(self.email) == bool(self.username):
            raise PydanticCustomError("login_name", "Give either email or username")
        return self

    def as_form(self) -> LoginForm:
        """Return the same as a form."""
        given = self.model_dump(include={"password", "device_token", "scope"})
        return LoginForm(username=self.email or self.username, **given)


class TokenAnswer(BaseModel):
    """RFC 6749 section 5.1, as it stands."""

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  the name of a kind of token
    expires_in: int = Field(description="Seconds until the access token expires")
    scope: str | None = Field(
        default=None, exclude_if=lambda scope: scope is None, description="What a narrowed token may do"
    )


class LoginAnswer(TokenAnswer):
    """The same, with a member of ours."""

    device_token: str = Field(description="Send it with later logins: others' wrong guesses do not slow them down")


class KeySet(BaseModel):
    """A JWK Set (RFC 7517 section 5)."""

    keys: list[dict[str, str]]


class RefreshRequest(Body):
    """A refresh token to exchange. Long enough for an access token sent by mistake: that is a bad grant too."""

    refresh_token: str = Field(min_length=1, max_length=4096)


class AddressRequest(Body):
    """An address to send something to, if it has an account."""

    email: Email


class LinkToken(Body):
    """The token of a mailed link."""

    token: Token


class PasswordReset(LinkToken):
    """A new password, proven by the token of a mailed link."""

    new_password: NewPassword


class Accepted(BaseModel):
    """The same answer whether or not there is such an account."""

    detail: str


class SessionRead(BaseModel):
    """One login of an account; `is_current` marks that of the request."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    device: str
    address: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    is_current: bool


class Confirmation(PatchBody):
    """The password, where the caller did not log in lately."""

    current_password: GivenPassword | SkipJsonSchema[None] = None


class ProfileUpdate(PatchBody):
    """Changes to one's own account; a new address needs `current_password`."""

    email: Email | SkipJsonSchema[None] = None
    username: Username | SkipJsonSchema[None] = None
    current_password: GivenPassword | SkipJsonSchema[None] = None

    @model_validator(mode="after")
    def _password_for_email(self) -> Self:
        if self.email is not None and self.current_password is None:
            raise PydanticCustomError("current_password_missing", "A new e-mail address needs current_password")
        return self


class PasswordChange(Body):
    """A new password, proven by the current one."""

    current_password: GivenPassword
    new_password: NewPassword


class AccountDeletion(Body):
    """Deletion of one's own account, proven by the password."""

    current_password: GivenPassword


class PersonalDataRead(RootModel[dict[str, list[dict[str, Any]]]]):
    """What each module keeps about the caller: objects with one key, the kind, and its values."""
