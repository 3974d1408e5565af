"""Recognise, make, change and end keys; make access tokens and service accounts."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.api_keys import security
from app.api_keys.config import ApiKeysConfig
from app.api_keys.events import ApiKeyCreated, ApiKeyRefused, ApiKeyRevoked, ApiKeyRotated, ServiceAccountCreated
from app.api_keys.exceptions import InvalidApiKey, InvalidTokenRequest
from app.api_keys.models import AccessToken, ApiKey
from app.api_keys.permissions import READ, WRITE
from app.api_keys.repositories import ApiKeyRepository
from app.api_keys.schemas import ApiKeyCreate, ApiKeyRead, NewApiKey, Rotation, TokenAnswer, TokenForm
from app.auth import ActionNotAllowed, AuthGatewayInterface, UserDTO
from app.core.api.throttle import Throttle
from app.core.db import BaseRepository, ListParams, PaginatedResult, SortOrder, SortParam, utcnow
from app.core.exceptions import ConflictError, InvalidInputError
from app.core.identity import Principal
from app.core.services.background import write_after_unit
from app.core.services.events import EventsServiceInterface

KEYS_PER_OWNER, TOKEN_SECONDS = 20, 15 * 60
"""Live keys of one account, and the life of an access token."""

_told = Throttle("api-key-refused", (1, 60 * 60))


@dataclass(kw_only=True)
class ApiKeyService:
    """Looks after keys. `by` is who asks, a person with a whole session; rights to write are judged as of now."""

    config: ApiKeysConfig
    gateway: AuthGatewayInterface
    events: EventsServiceInterface
    can_act: Callable[[UserDTO], Awaitable[bool]]
    """May keys act for this account?"""
    keys = ApiKeyRepository()
    tokens = BaseRepository[AccessToken]()

    async def verify(self, text: str, *, db: AsyncSession) -> Principal:
        """Return the caller that a key or token proves, with no more than the owner holds now; raises InvalidApiKey."""
        row = await self.keys.find(text, db=db)
        if row is None:
            raise InvalidApiKey
        owner = await self.gateway.get_user(row.owner_id) if row.is_live else None
        if owner is None or not await self.can_act(owner):
            if (await _told.count(row.prefix)).allowed:
                refused = ApiKeyRefused(user_id=row.owner_id, api_key_id=row.id)
                write_after_unit(partial(self._tell, refused), "the refusal of an API key was not told")
            raise InvalidApiKey
        if row.notes_use:
            write_after_unit(partial(self.keys.note_use, row.id), "the use of an API key was not noted")
        return Principal(kind="api_key", id=row.id, user=owner.within(row.scopes), scope=frozenset(row.scopes))

    async def exchange(self, form: TokenForm, *, db: AsyncSession) -> TokenAnswer:
        """Return an access token of a key (RFC 6749 section 4.4); raises InvalidApiKey or InvalidTokenRequest."""
        secret = form.client_secret.get_secret_value()
        if form.grant_type != "client_credentials":
            raise InvalidTokenRequest(error="unsupported_grant_type" if form.grant_type else "invalid_request")
        if security.prefix_of(secret) != form.client_id or form.client_id == security.TOKEN:
            raise InvalidApiKey
        found = await self.verify(secret, db=db)
        scopes = frozenset(form.scope.split()) or found.permissions
        if not scopes <= found.permissions:
            raise InvalidTokenRequest("The key does not have every scope that was asked for.", error="invalid_scope")
        token, end = security.new_text(), utcnow() + timedelta(seconds=TOKEN_SECONDS)
        values = {"api_key_id": found.id, "scopes": sorted(scopes), "expires_at": end}
        await self.tokens.create(db=db, data={**values, "token_hash": security.hash_of(token)})
        if await self.keys.find(secret, db=db) is None:  # rotated meanwhile; from now on that waits for this token
            raise InvalidApiKey
        await self.tokens.commit(db=db)
        return TokenAnswer(access_token=token, expires_in=TOKEN_SECONDS, scope=" ".join(sorted(scopes)))

    async def get_list(self, page: int, *, db: AsyncSession, owner_id: int, by: UserDTO) -> PaginatedResult[ApiKeyRead]:
        """Return one page of the keys of an account, the latest first."""
        if owner_id != by.id and READ not in by.permissions:
            raise ActionNotAllowed(missing=READ)
        params = ListParams(page=page, sort=[SortParam(field="id", order=SortOrder.DESC)])
        return await self.keys.get_list(db=db, params=params, into=ApiKeyRead, owner_id=owner_id)

    async def create(self, data: ApiKeyCreate, *, db: AsyncSession, by: UserDTO) -> NewApiKey:
        """Make a key of the caller, or of a service account, with scopes that the caller holds."""
        owner_id = data.owner_id or by.id
        live = await self.keys.count_live(db=db, owner_id=owner_id)
        await self._authorise(by, owner_id, scopes=data.scopes)
        if live >= KEYS_PER_OWNER:
            raise ConflictError("The account has as many live keys as it may have: revoke one.")
        text = security.new_text(prefix := security.new_prefix())
        values = {"name": data.name, "scopes": sorted(data.scopes), "expires_at": self._end(data.expires_in_days)}
        hashed = {"prefix": prefix, "secret_hash": security.hash_of(text)}
        key = await self.keys.create(db=db, data={"owner_id": owner_id, **values, **hashed})
        self.events.dispatch(ApiKeyCreated(**_about(key, by), scopes=tuple(key.scopes)))
        await self.keys.commit(db=db)
        return NewApiKey.model_validate({**key.to_dict(), "key": text})

    async def rotate(self, api_key_id: int, data: Rotation, *, db: AsyncSession, by: UserDTO) -> NewApiKey:
        """Give a key another secret and a new lifetime; the present secret stays valid for the overlap."""
        key, now = await self._lock(api_key_id, db=db, by=by), utcnow()
        if key.revoked_at or (key.expires_at and key.expires_at <= now):
            raise ConflictError("The key has ended: make another one.")
        overlaps_until = now + timedelta(seconds=data.overlap_seconds)
        values = {
            "secret_hash": security.hash_of(text := security.new_text(key.prefix)),
            "previous_hash": key.secret_hash,
            "previous_until": min(overlaps_until, key.expires_at or overlaps_until),
            "expires_at": self._end(data.expires_in_days),
        }
        await self.keys.update(db=db, model=key, data=values)
        if not data.overlap_seconds:  # whoever has the secret may have exchanged it
            await self.tokens.delete_all(db=db, api_key_id=key.id)
        self.events.dispatch(ApiKeyRotated(**_about(key, by), overlap_seconds=data.overlap_seconds))
        await self.keys.commit(db=db)
        return NewApiKey.model_validate({**key.to_dict(), "key": text})

    async def revoke(self, api_key_id: int, *, db: AsyncSession, by: UserDTO) -> None:
        """End a key and its access tokens; one that was revoked already stays as it is."""
        key = await self._lock(api_key_id, db=db, by=by, of_person=True)
        if key.revoked_at is None:
            await self.keys.update(db=db, model=key, data={"revoked_at": utcnow()})
            self.events.dispatch(ApiKeyRevoked(**_about(key, by)))
        await self.keys.commit(db=db)

    async def create_service_account(self, username: str, *, db: AsyncSession, by: UserDTO) -> UserDTO:
        """Make an account that only holds keys; raises UsernameTaken."""
        user = await self.gateway.create_service_account(username)
        self.events.dispatch(ServiceAccountCreated(user_id=user.id, actor_id=by.id))
        await self.keys.commit(db=db)
        return user

    async def _lock(self, api_key_id: int, *, db: AsyncSession, by: UserDTO, of_person: bool = False) -> ApiKey:
        reach: dict[str, Any] = {} if WRITE in by.permissions else {"owner_id": by.id}
        key = await self.keys.require(db=db, for_update=True, id=api_key_id, **reach)
        beyond = () if of_person or key.owner_id == by.id else key.scopes  # its owner may be granted them later
        await self._authorise(by, key.owner_id, scopes=frozenset(beyond), of_person=of_person)
        return key

    async def _authorise(
        self, by: UserDTO, owner_id: int, *, scopes: frozenset[str] = frozenset(), of_person: bool = False
    ) -> None:
        """Judge the caller as of now: rights, or the account, may have gone since the request came."""
        users = {user.id: user for user in await self.gateway.get_users([by.id, owner_id])}
        actor, owner = users.get(by.id), users.get(owner_id)
        if actor is None or not await self.can_act(actor):
            raise ActionNotAllowed
        if beyond := scopes - actor.permissions:
            raise ActionNotAllowed(f"You do not hold {', '.join(sorted(beyond))}.")
        if owner_id == by.id:
            return
        if WRITE not in actor.permissions:
            raise ActionNotAllowed(missing=WRITE)
        if not of_person and not (owner and owner.is_service_account):
            raise ActionNotAllowed("The keys of a person are made and changed by their owner alone.")
        if owner and not owner.permissions <= actor.permissions:
            raise ActionNotAllowed("The owner of the key holds permissions that you do not hold.")

    async def _tell(self, event: ApiKeyRefused, *, db: AsyncSession) -> None:
        self.events.dispatch(event)  # which is stored with `db`, the current unit

    def _end(self, days: int | None) -> datetime | None:
        most = self.config.API_KEYS_MAX_DAYS
        if most and (days is None or days > most):
            fault = {"loc": ["body", "expires_in_days"], "msg": f"At most {most} days", "type": "invalid_lifetime"}
            raise InvalidInputError(errors=[fault])
        return None if days is None else utcnow() + timedelta(days=days)


def _about(key: ApiKey, by: UserDTO) -> dict[str, Any]:
    return {"user_id": key.owner_id, "actor_id": by.id, "api_key_id": key.id}
