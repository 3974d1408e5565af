"""Export and erasure by an operator."""

from typing import IO

from app.auth.repositories import UserRepository
from app.auth.schemas.user import UserResponse
from app.auth.services.accounts import AccountService, operator_service
from app.core.db import session_scope
from app.core.services.personal_data import erase_personal_data, export_personal_data


async def find_account(login: str, *, with_deleted: bool = False) -> UserResponse:
    """Return the account of an address, a user name or an id; a deleted one has only its id. Digits are an id."""
    users = UserRepository()
    async with session_scope(read_only=True) as db:
        if login.isascii() and login.isdecimal():
            user_id = int(login) if len(login) < 19 else 0
        else:
            found = await users.find_by_login(db=db, login=login)
            user_id = found.id if found else 0
        return UserResponse.model_validate(await users.require(db=db, id=user_id, with_deleted=with_deleted))


async def export_account(user_id: int) -> IO[bytes]:
    """Return everything about the user, as JSON."""
    async with session_scope(read_only=True) as db:
        return await export_personal_data(user_id, db=db)


async def erase_account(user_id: int) -> int:
    """Delete the account, unless that is done, and erase it at once; return how many of its jobs still have to run.

    Raises LastSuperuser.
    """
    users = UserRepository()
    async with session_scope() as db:
        user = await users.require(db=db, id=user_id, for_update=True, with_deleted=True)
        if not user.is_deleted:
            await operator_service(AccountService).delete_account(user, db=db, actor_id=None)
    return await erase_personal_data(user_id)
