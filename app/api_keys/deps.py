"""Dependencies of routes, listeners and authenticators."""

from typing import Annotated, TypeAlias

from fastapi import Depends
from fastapi.requests import HTTPConnection

from app.api_keys.config import get_api_keys_config
from app.api_keys.services import ApiKeyService
from app.auth import UserDTO, get_gateway
from app.auth.deps import active_user, auth_config, security_events
from app.auth.exceptions import AccountNotActive
from app.core.deps import configured
from app.core.services.events.interface import current_events


async def api_key_service(connection: HTTPConnection) -> ApiKeyService:
    """Return the service, for an authenticator too."""
    accounts = await auth_config(connection)

    async def can_act(owner: UserDTO) -> bool:
        try:
            await active_user(owner, accounts)
        except AccountNotActive:
            return False
        return not owner.password_change_required

    return ApiKeyService(
        config=configured(connection, get_api_keys_config),
        gateway=await get_gateway(),
        events=await security_events(connection, current_events()),
        can_act=can_act,
    )


ApiKeys: TypeAlias = Annotated[ApiKeyService, Depends(api_key_service)]
