"""The gateway for other modules: DTOs in, DTOs out."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import overload

from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import deprecated

from app.auth.repositories import UserRepository
from app.auth.schemas.user import UserDTO, UserResponse
from app.core.db import ListParams, PaginatedResult, current_session, session_scope


class AuthGatewayInterface(ABC):
    """Reads accounts, in the current unit of work or in one of its own."""

    @abstractmethod
    async def get_user(self, user_id: int) -> UserDTO | None:
        """Return the account, or None where there is none (any more)."""

    @abstractmethod
    async def get_users(self, user_ids: Sequence[int]) -> list[UserDTO]:
        """Return the accounts that exist among `user_ids`, ordered by id."""

    @abstractmethod
    async def get_user_list(self, params: ListParams) -> PaginatedResult[UserDTO]:
        """Return one page of the accounts; sorts and filters take the fields of a UserDTO."""

    # Not abstract: implementations of a fork's own from before it need not have it.
    async def create_service_account(self, username: str) -> UserDTO:
        """Make an account for a machine: it has no password and no mailbox. Raises UsernameTaken."""
        raise NotImplementedError


class AuthGateway(AuthGatewayInterface):
    """The gateway in this process."""

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
            page = await self.users.get_list(db=db, params=params, into=UserResponse)
            found = {user.id: user for user in await self.users.get_by_ids(db=db, ids=[one.id for one in page.items])}
        items = [found[one.id] for one in page.items if one.id in found]
        return PaginatedResult(items, page.total, page.page, page.per_page, page.cursors)

    async def create_service_account(self, username: str) -> UserDTO:
        async with _unit(read_only=False) as db:
            user = await self.users.add_service_account(db=db, username=username)
            return (await self.users.get_by_ids(db=db, ids=[user.id]))[0]


async def get_gateway() -> AuthGatewayInterface:
    """Return the gateway; can be called without a request too."""
    return AuthGateway(users=UserRepository())


@deprecated("auth_gateway is called get_gateway now")
async def auth_gateway() -> AuthGatewayInterface:
    """Return the gateway: the former name of `get_gateway`."""
    return await get_gateway()


@asynccontextmanager
async def _unit(*, read_only: bool = True) -> AsyncIterator[AsyncSession]:
    if session := current_session():
        yield session
    else:
        async with session_scope(read_only=read_only) as session:
            yield session
