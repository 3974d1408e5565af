"""Tables of keys, and of the access tokens that they were exchanged for."""

from datetime import datetime

from sqlalchemy import JSON, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.db import BIGINT, BaseModel


class ApiKey(BaseModel):
    """One key, of which only hashes are kept: of the present secret, and of the one before until its overlap ends.

    `prefix` is public. `owner_id` is the account it acts for, with no more permissions than `scopes` names.
    """

    __tablename__ = "api_keys_keys"

    owner_id: Mapped[int] = mapped_column(BIGINT, index=True)
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(40), unique=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    previous_hash: Mapped[str | None] = mapped_column(String(64))
    previous_until: Mapped[datetime | None]
    scopes: Mapped[list[str]] = mapped_column(JSON)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AccessToken(BaseModel):
    """A short-lived token of a key, as a hash. It ends with the key."""

    __tablename__ = "api_keys_tokens"

    api_key_id: Mapped[int] = mapped_column(BIGINT, ForeignKey("api_keys_keys.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    expires_at: Mapped[datetime]
