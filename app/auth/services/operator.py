"""Account operations of the `kit` command, which has no account of its own. Each needs an open runtime."""

from pydantic import SecretStr

from app.auth.config import AuthConfig, get_auth_config
from app.auth.emails.service import Links
from app.auth.events import PasswordResetCompleted, UserCreated
from app.auth.repositories.sessions import SessionRepository
from app.auth.repositories.users import UserRepository
from app.auth.schemas.user import UserCreate, UserDTO
from app.auth.services.accounts import AccountService
from app.core.configs import get_settings
from app.core.db import session_scope
from app.core.services.events.interface import current_events
from app.core.services.mail.interface import current_mail


async def create_account(data: UserCreate) -> UserDTO:
    """A new account, told to listeners; EmailTaken or UsernameTaken."""
    config = get_auth_config()
    password_hash = await config.password_hasher.hash(data.password.get_secret_value())
    async with session_scope() as db:
        values = data.model_dump(exclude={"password"})
        user = await UserRepository().add(db=db, password_hash=password_hash, **values)
        current_events().dispatch(UserCreated(**user.to_dict()))
        if user.is_superuser:
            await _accounts(config).tell_new_superuser(user)
        return UserDTO.model_validate(user)


async def reset_password(login: str, password: SecretStr) -> UserDTO:
    """Set the password of the account with this address or user name, as a mailed link would; UserNotFound."""
    config, users = get_auth_config(), UserRepository()
    password_hash = await config.password_hasher.hash(password.get_secret_value())
    async with session_scope() as db:
        found = await users.find_by_login(db=db, login=login)
        user = await users.require(db=db, id=found.id if found else 0, for_update=True)
        await _accounts(config).set_password(user, password_hash, db=db)
        current_events().dispatch(PasswordResetCompleted(user_id=user.id))
        return UserDTO.model_validate(user)


def _accounts(config: AuthConfig) -> AccountService:
    return AccountService(
        users=UserRepository(),
        sessions=SessionRepository(),
        events=current_events(),
        mail=current_mail(),
        links=Links(get_settings()),
        verification_required=config.verification_required,
    )
