"""Users as others see them, and what lists and administrators may ask for."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from app.auth.models import User, UserStatus
from app.auth.schemas.base import Email, NewPassword, Username
from app.core.api.inputs import Body, PatchBody
from app.core.db import FilterParam, ListParams, SortParam


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
    """A user as other code of this service sees it."""

    is_superuser: bool = Field(exclude=True)

    @property
    def is_admin(self) -> bool:
        """Whether the user may do everything, as policies ask it."""
        return self.is_superuser


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
    """What an administrator may change."""

    email: Email | SkipJsonSchema[None] = None
    username: Username | SkipJsonSchema[None] = None
    status_id: UserStatus | SkipJsonSchema[None] = None
    is_verified: bool | SkipJsonSchema[None] = None
    is_superuser: bool | SkipJsonSchema[None] = None


class UserSortParam(SortParam):
    """What users can be sorted by."""

    field: Literal["id", "email", "username", "status_id", "is_verified", "created_at", "updated_at"]


class UserFilterParam(FilterParam):
    """What users can be filtered by."""

    field: Literal["id", "email", "username", "status_id", "is_verified", "created_at", "updated_at"]


class UserListParams(ListParams):
    """A list of users."""

    model = User
