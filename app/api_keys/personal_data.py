"""What this module keeps about a user: the keys of the account."""

from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.api_keys.repositories import ApiKeyRepository
from app.api_keys.schemas import ApiKeyRead


class KeysOfUser:
    """Exports and deletes the keys of a user."""

    async def export(self, user_id: int, *, db: AsyncSession) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield the keys, without their hashes."""
        async for key in ApiKeyRepository().stream(db=db, fields=tuple(ApiKeyRead.model_fields), owner_id=user_id):
            yield "key", key

    async def erase(self, user_id: int, *, db: AsyncSession) -> None:
        """Delete the keys, and their tokens with them."""
        await ApiKeyRepository().delete_all(db=db, owner_id=user_id)


personal_data = KeysOfUser()
