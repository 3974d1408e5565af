"""What other modules may ask this one: DTOs in, DTOs out."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import overload

from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import deprecated

from app.auth.repositories.users import UserRepository
from app.auth.schemas.user import UserDTO
from app.core.db import ListParams, PaginatedResult, current_session, session_scope


class AuthGatewayInterface(ABC):
    """Reads accounts. Inside a unit of work it reads through that, elsewhere through one of its own."""

    @abstractmethod
    async def get_user(self, user_id: int) -> UserDTO | None:
        """The account, or None where there is none (any more)."""

    @abstractmethod
    async def get_users(self, user_ids: Sequence[int]) -> list[UserDTO]:
        """The accounts that exist among `user_ids`, by id."""

    @abstractmethod
    async def get_user_list(self, params: ListParams) -> PaginatedResult[UserDTO]:
        """One page of the accounts; the fields of its sorts and filters are those of a UserDTO."""


class AuthGateway(AuthGatewayInterface):
    """The gateway inside this process."""

    def __init__(self, *, users: UserRepository) -> None:
        self.users = users

    async def get_user(self, user_id: int) -> UserDTO | None:
        return next(iter(await self.get_users([user_id])), None)

    async def get_users(self, user_ids: Sequence[int]) -> list[UserDTO]:
        async with _unit() as db:
            return await self.users.get_by_ids(db=db, ids=user_ids)

    @overload
    async def get_user_list(self, params: ListParams) -> PaginatedResult[UserDTO]: ...

    @overload
    @deprecated("get_user_list takes ListParams now; for ids there is get_users")
    async def get_user_list(self, params: Sequence[int]) -> list[UserDTO]: ...

    async def get_user_list(self, params: ListParams | Sequence[int]) -> PaginatedResult[UserDTO] | list[UserDTO]:
        if not isinstance(params, ListParams):
            message = "get_user_list takes ListParams now; for ids there is get_users"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return await self.get_users(params)
        asked = {sort.field for sort in params.sort or ()} | {item.field for item in params.filters or ()}
        if hidden := asked - set(UserDTO.model_fields):
            raise ValueError(f"not a field of a UserDTO: {', '.join(sorted(hidden))}")
        async with _unit() as db:
            return await self.users.get_list(db=db, params=params, into=UserDTO)


async def get_gateway() -> AuthGatewayInterface:
    """The gateway, as a dependency; plainly callable where there is no request."""
    return AuthGateway(users=UserRepository())


@deprecated("auth_gateway is called get_gateway now")
async def auth_gateway() -> AuthGatewayInterface:
    """The former name of `get_gateway`."""
    return await get_gateway()


@asynccontextmanager
async def _unit() -> AsyncIterator[AsyncSession]:
    if session := current_session():
        yield session
    else:
        async with session_scope(read_only=True) as session:
            yield session
