"""What whoever operates the service may do without an account of their own."""

from app.auth.config import get_auth_config
from app.auth.events import SuperuserChanged, UserCreated
from app.auth.repositories.users import UserRepository
from app.auth.schemas.user import UserCreate, UserDTO
from app.core.db import session_scope
from app.core.runtime import runtime


async def create_account(data: UserCreate) -> UserDTO:
    """A new account, told to listeners; EmailTaken or UsernameTaken. Needs an open runtime."""
    password_hash = await get_auth_config().password_hasher.hash(data.password.get_secret_value())
    users = UserRepository()
    async with session_scope() as db:
        user = await users.add(db=db, password_hash=password_hash, **data.model_dump(exclude={"password"}))
        runtime().events.dispatch(UserCreated(user_id=user.id))
        if user.is_superuser:
            runtime().events.dispatch(SuperuserChanged(user_id=user.id, is_superuser=True))
        return UserDTO.model_validate(user)
