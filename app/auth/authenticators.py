"""Access tokens of sessions as the credential of a request."""

from fastapi.requests import HTTPConnection
from fastapi.security import OAuth2PasswordBearer
from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import get_auth_config
from app.auth.deps import is_open_before_password_change
from app.auth.exceptions import InvalidAccessToken, PasswordChangeRequired
from app.auth.repositories import UserRepository
from app.core.configs import app_config
from app.core.deps import configured
from app.core.identity import Authenticator, Principal


class AccessTokenAuthenticator(Authenticator):
    """Verifies access tokens. One statement reads session, user and permissions: both must be alive."""

    name = "OAuth2PasswordBearer"
    # No refreshUrl: RFC 6749 refreshes by form, ours is a JSON body.
    scheme = OAuth2PasswordBearer(tokenUrl=f"{app_config.API_V1_STR}/auth/login")

    async def authenticate(self, connection: HTTPConnection, *, db: AsyncSession) -> Principal | None:
        kind, token = get_authorization_scheme_param(connection.headers.get("authorization"))
        if kind.lower() != "bearer":
            return None
        claims = configured(connection, get_auth_config).access_tokens.read(token)
        principal = await UserRepository().principal(db=db, user_id=int(claims.sub), session_id=int(claims.sid))
        if principal is None:
            raise InvalidAccessToken
        if principal.user.password_change_required and not is_open_before_password_change(connection):
            raise PasswordChangeRequired
        return principal


authenticators = [AccessTokenAuthenticator()]
