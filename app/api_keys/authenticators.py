"""Keys and their access tokens as the credential of a request: `X-API-Key: kit_...` or `Authorization: Bearer kit_...`.

A bearer along with another `X-API-Key` is refused: it would not be clear for whom the request acts.
"""

from fastapi.requests import HTTPConnection
from fastapi.security import APIKeyHeader
from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy.ext.asyncio import AsyncSession

from app.api_keys.deps import api_key_service
from app.api_keys.exceptions import InvalidApiKey
from app.api_keys.security import PROJECT
from app.core.api import ConfigurableRateLimiter
from app.core.identity import Authenticator, Principal, client_address, remember_principal

HEADER = "X-API-Key"
refusals = ConfigurableRateLimiter(times=30, seconds=60, name="api-key-refusals", key=client_address)
"""Counts refusals alone: a right key is let in from every address."""


class ApiKeyAuthenticator(Authenticator):
    """Verifies keys and access tokens."""

    name = "ApiKey"
    scheme = APIKeyHeader(name=HEADER)

    async def authenticate(self, connection: HTTPConnection, *, db: AsyncSession) -> Principal | None:
        text = _presented(connection)
        if text is None:
            return None
        service = await api_key_service(connection)
        try:
            principal = await service.verify(text, db=db)
        except InvalidApiKey:
            await refusals(connection)
            raise
        remember_principal(connection, principal)
        of_all_routes = ConfigurableRateLimiter(times=service.config.API_KEYS_PER_MINUTE, seconds=60, name="api-key")
        await of_all_routes(connection)
        return principal


authenticators = [ApiKeyAuthenticator()]


def _presented(connection: HTTPConnection) -> str | None:
    kind, bearer = get_authorization_scheme_param(connection.headers.get("authorization"))
    bearers = {bearer} if kind.lower() == "bearer" else set()
    keys = set(connection.headers.getlist(HEADER))
    if keys and len(keys | bearers) > 1:
        raise InvalidApiKey("Send one credential: either X-API-Key or a bearer.")
    return next((text for text in keys | bearers if keys or text.startswith(f"{PROJECT}_")), None)
