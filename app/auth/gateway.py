"""What other modules may ask this one: DTOs in, DTOs out."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.repositories.users import UserRepository
from app.auth.schemas.user import UserDTO
from app.core.db import current_session, session_scope


class AuthGatewayInterface(ABC):
    """Reads accounts. Inside a unit of work it reads through that, elsewhere through one of its own."""

    @abstractmethod
    async def get_user(self, user_id: int) -> UserDTO | None:
        """The account, or None where there is none (any more)."""

    @abstractmethod
    async def get_user_list(self, user_ids: Sequence[int]) -> list[UserDTO]:
        """The accounts that exist among `user_ids`, by id."""


class DatabaseAuthGateway(AuthGatewayInterface):
    """The gateway inside this process."""

    def __init__(self, *, users: UserRepository) -> None:
        self.users = users

    async def get_user(self, user_id: int) -> UserDTO | None:
        return next(iter(await self.get_user_list([user_id])), None)

    async def get_user_list(self, user_ids: Sequence[int]) -> list[UserDTO]:
        async with _unit() as db:
            return await self.users.get_by_ids(db=db, ids=user_ids)


@asynccontextmanager
async def _unit() -> AsyncIterator[AsyncSession]:
    if session := current_session():
        yield session
    else:
        async with session_scope(read_only=True) as session:
            yield session
