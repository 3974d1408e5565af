"""What people change about their own account."""

from typing import Self

from pydantic import model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from app.auth.schemas.base import Email, GivenPassword, NewPassword, Username
from app.core.api.inputs import Body, PatchBody


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
    """The end of one's own account, proven by the password."""

    current_password: GivenPassword
