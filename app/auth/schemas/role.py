"""Roles, permissions and grants: bodies and answers."""

from datetime import datetime
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from app.core.api.inputs import Body, PatchBody

ROLE_NAME = r"^[a-z][a-z0-9_-]*$"
RoleName: TypeAlias = Annotated[str, Field(max_length=32, pattern=ROLE_NAME, examples=["editor"])]
Description: TypeAlias = Annotated[str, Field(max_length=200)]
PermissionNames: TypeAlias = Annotated[
    list[Annotated[str, Field(max_length=64)]], Field(max_length=1000, examples=[["users:read"]])
]


class RoleRead(BaseModel):
    """A role as the API shows it. `admin` holds every declared permission."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    id: int
    name: str
    description: str
    permissions: list[str]
    created_at: datetime
    updated_at: datetime


class RoleCreate(Body):
    """A new role."""

    name: RoleName
    description: Description = ""
    permissions: PermissionNames = Field(default_factory=list)


class RoleUpdate(PatchBody):
    """Changes to a role; `permissions` are all that it holds afterwards."""

    name: RoleName | SkipJsonSchema[None] = None
    description: Description | SkipJsonSchema[None] = None
    permissions: PermissionNames | SkipJsonSchema[None] = None


class PermissionRead(BaseModel):
    """A permission, and whether a module declares it; one that none declares counts for nothing."""

    name: str
    description: str
    is_declared: bool


class GrantRead(BaseModel):
    """A role that an account has; `granted_by_id` is null where nobody's account granted it."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    name: str
    description: str
    granted_at: datetime
    granted_by_id: int | None
