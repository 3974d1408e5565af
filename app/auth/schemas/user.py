"""Accounts: field types, bodies, what lists may sort and filter by."""

from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from app.auth.models import User, UserStatus
from app.auth.security.identity import SERVICE_DOMAIN, USERNAME_MAX, USERNAME_MIN, USERNAME_PATTERN, normalize_email
from app.auth.security.passwords import MAX_LENGTH
from app.core.api.inputs import Body, PatchBody
from app.core.db import FilterParam, ListParams, SortParam


def _email(value: str) -> str:
    try:
        return normalize_email(value)
    except ValueError:
        # The library's own message may quote what was sent.
        raise PydanticCustomError("email", "Value is not a valid e-mail address") from None


Email: TypeAlias = Annotated[str, Field(max_length=254, json_schema_extra={"format": "email"}), AfterValidator(_email)]
Username: TypeAlias = Annotated[
    str, Field(min_length=USERNAME_MIN, max_length=USERNAME_MAX, pattern=USERNAME_PATTERN, examples=["bob"])
]
NewPassword: TypeAlias = Annotated[SecretStr, Field(min_length=1, max_length=MAX_LENGTH)]  # see PasswordPolicy
GivenPassword: TypeAlias = Annotated[SecretStr, Field(max_length=MAX_LENGTH)]
Token: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]


class UserResponse(BaseModel):
    """A user as the API shows it."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    id: int
    email: str
    username: str
    status_id: UserStatus
    is_verified: bool
    created_at: datetime
    updated_at: datetime


class UserDTO(UserResponse):
    """A user as other code of this service sees it.

    `roles` and `permissions` are those of a request's caller, within the scope of the credential, and of an account
    that the gateway was asked for by id; elsewhere they are empty.
    """

    is_superuser: bool = Field(exclude=True)  # deprecated: "admin" in roles
    roles: frozenset[str] = Field(default=frozenset(), exclude=True)
    permissions: frozenset[str] = Field(default=frozenset(), exclude=True)
    password_change_required: bool = Field(default=False, exclude=True)

    @property
    def is_admin(self) -> bool:
        """Return True where the user may do everything; for policies."""
        return "admin" in self.roles

    @property
    def is_service_account(self) -> bool:
        """Return True for the account of a machine, to which nobody can log in."""
        return self.email.endswith(f"@{SERVICE_DOMAIN}")

    def within(self, scope: Collection[str]) -> "UserDTO":
        """Return the user as a credential narrowed to these permissions lets them act: in no role."""
        rights = {"roles": frozenset(), "permissions": self.permissions & frozenset(scope), "is_superuser": False}
        return self.model_copy(update=rights)


class UserCreate(Body):
    """A new account, made by an administrator."""

    email: Email
    username: Username
    password: NewPassword
    is_verified: bool = False
    is_superuser: bool = False


class PasswordSet(Body):
    """Another password for an account, set by an operator."""

    password: NewPassword


class UserUpdate(PatchBody):
    """Changes to an account by an administrator."""

    email: Email | SkipJsonSchema[None] = None
    username: Username | SkipJsonSchema[None] = None
    status_id: UserStatus | SkipJsonSchema[None] = None
    is_verified: bool | SkipJsonSchema[None] = None
    is_superuser: bool | SkipJsonSchema[None] = None


class UserSortParam(SortParam):
    """Sort fields of users."""

    field: Literal["id", "email", "username", "status_id", "is_verified", "created_at", "updated_at"]


class UserFilterParam(FilterParam):
    """Filter fields of users."""

    field: Literal["id", "email", "username", "status_id", "is_verified", "created_at", "updated_at"]


class UserListParams(ListParams):
    """A list of users."""

    model = User
