"""Bodies and answers of keys, access tokens and service accounts."""

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from app.core.api.inputs import Body, Id

Scope: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9_:]{1,64}$", examples=["users:read"])]


class _MakesSecret(Body):
    expires_in_days: int | None = Field(90, strict=True, ge=1, le=3660, description="Null for no end, where allowed")
    current_password: SecretStr | None = Field(None, max_length=256, description="Needed 15 minutes after the login")


class ApiKeyCreate(_MakesSecret):
    """A new key."""

    name: str = Field(min_length=1, max_length=100, examples=["nightly import"])
    scopes: frozenset[Scope] = Field(frozenset(), max_length=100, description="The permissions that it may use")
    owner_id: Id | None = Field(None, description="A service account; the caller by default")


class Rotation(_MakesSecret):
    """A new secret of a key, and how long the present one stays valid."""

    overlap_seconds: int = Field(86_400, strict=True, ge=0, le=7 * 86_400)


class ApiKeyRead(BaseModel):
    """A key as the API shows it. `prefix`, its beginning, is public: it is the client id that tokens are asked with."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    id: int
    owner_id: int
    name: str
    prefix: str
    scopes: list[str]
    expires_at: datetime | None
    previous_until: datetime | None = Field(description="When the secret before the last rotation ends")
    last_used_at: datetime | None = Field(description="To the minute")
    revoked_at: datetime | None
    created_at: datetime


class NewApiKey(ApiKeyRead):
    """A key with its text, which is shown only now."""

    key: str = Field(repr=False)


class TokenForm(BaseModel):
    """The client credentials grant of RFC 6749 section 4.4.2; fields it does not know are ignored (section 3.2)."""

    grant_type: str = Field("", examples=["client_credentials"])
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    scope: str = ""


class TokenAnswer(BaseModel):
    """RFC 6749 section 5.1; there is no refresh token (section 4.4.3)."""

    access_token: str = Field(repr=False)
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  the name of a kind of token
    expires_in: int = Field(description="Seconds until the access token expires")
    scope: str


class ServiceAccount(Body):
    """A new service account."""

    username: str = Field(min_length=3, max_length=32, pattern=r"^[A-Za-z0-9_.-]+$", examples=["importer"])
