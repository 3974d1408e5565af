"""Keys and their access tokens as the credential of a request: `X-API-Key: kit_...` or `Authorization: Bearer kit_...`.

A bearer along with another `X-API-Key` is refused: it would not be clear for whom the request acts.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial

from fastapi.requests import HTTPConnection
from fastapi.security import APIKeyHeader
from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.api_keys.deps import api_key_service
from app.api_keys.events import ApiKeyRefused
from app.api_keys.exceptions import InvalidApiKey
from app.api_keys.models import ApiKey
from app.api_keys.repositories import REFUSAL_NOTED_FOR, USE_NOTED_FOR, ApiKeyRepository
from app.api_keys.security import PROJECT
from app.api_keys.services import ApiKeyService, Presented
from app.core.api import ConfigurableRateLimiter
from app.core.db import session_scope
from app.core.deps import logger
from app.core.identity import Authenticator, Principal, client_address, remember_principal

HEADER = "X-API-Key"
refusals = ConfigurableRateLimiter(times=30, seconds=60, name="api-key-refusals", key=client_address)
"""Counts refusals alone: a right key is let in from every address."""


class ApiKeyAuthenticator(Authenticator):
    """Verifies keys, and gives the caller no permission that the owner does not hold now, and no role."""

    name = "ApiKey"
    scheme = APIKeyHeader(name=HEADER)

    async def authenticate(self, connection: HTTPConnection, *, db: AsyncSession) -> Principal | None:
        text = _presented(connection)
        if text is None:
            return None
        service = await api_key_service(connection)
        found = await service.find(text, db=db)
        if found is None or found.owner is None:
            if found and found.key.notes_refusal:
                _afterwards(connection, partial(_tell_refusal, found, service))
            await refusals(connection)
            raise InvalidApiKey
        key_id, user, scope = found.key.id, found.owner.within(found.scopes), found.scopes
        principal = Principal(kind="api_key", id=key_id, user=user, permissions=user.permissions, scope=scope)
        remember_principal(connection, principal)
        if found.key.notes_use:
            note = partial(ApiKeyRepository().note, ApiKey.last_used_at, USE_NOTED_FOR, api_key_id=key_id)
            _afterwards(connection, note)
        per_minute = service.config.API_KEYS_PER_MINUTE  # on all routes together
        await ConfigurableRateLimiter(times=per_minute, seconds=60, name="api-key")(connection)
        return principal


authenticators = [ApiKeyAuthenticator()]


def _presented(connection: HTTPConnection) -> str | None:
    kind, bearer = get_authorization_scheme_param(connection.headers.get("authorization"))
    bearers = [bearer] if kind.lower() == "bearer" else []
    keys = connection.headers.getlist(HEADER)
    if len({*keys, *bearers}) > 1 and keys:
        raise InvalidApiKey("Send one credential: either X-API-Key or a bearer.")
    return next((text for text in (*keys, *bearers) if keys or text.startswith(f"{PROJECT}_")), None)


async def _tell_refusal(found: Presented, service: ApiKeyService, *, db: AsyncSession) -> None:
    about = {"api_key_id": found.key.id}
    if await service.keys.note(ApiKey.last_refused_at, REFUSAL_NOTED_FOR, db=db, **about):
        service.events.dispatch(ApiKeyRefused(user_id=found.key.owner_id, **about))


def _afterwards(connection: HTTPConnection, write: Callable[..., Awaitable[object]]) -> None:
    """Write once the unit of the request has ended and its answer has left; of a websocket once it is closed."""

    async def run() -> None:
        try:
            async with session_scope() as db:
                await write(db=db)
        except (SQLAlchemyError, OSError) as exc:
            await logger.a_warning("the use of an API key could not be noted", error=type(exc).__name__)

    stack: AsyncExitStack = connection.scope["fastapi_inner_astack"]  # on which `yield` of dependencies ends, too
    stack.push_async_callback(run)
