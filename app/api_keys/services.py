"""Recognise, make, change and end keys; make access tokens and service accounts."""

import hmac
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from app.api_keys import security
from app.api_keys.config import ApiKeysConfig
from app.api_keys.events import ApiKeyCreated, ApiKeyRevoked, ApiKeyRotated, ServiceAccountCreated
from app.api_keys.exceptions import ApiKeyNotFound, InvalidApiKey, InvalidTokenRequest
from app.api_keys.models import AccessToken, ApiKey
from app.api_keys.permissions import READ, WRITE
from app.api_keys.repositories import BY_TOKEN, ApiKeyRepository
from app.api_keys.schemas import ApiKeyCreate, ApiKeyListParams, ApiKeyRead, NewApiKey, Rotation, TokenAnswer, TokenForm
from app.auth import ActionNotAllowed, AuthGatewayInterface, UserDTO
from app.core.db import BaseRepository, PaginatedResult, utcnow
from app.core.exceptions import ConflictError, InvalidInputError
from app.core.services.events import EventsServiceInterface

KEYS_PER_OWNER = 20
"""Live keys of one account."""
TOKEN_SECONDS = 15 * 60


class Presented(NamedTuple):
    """A key whose secret was right, the scopes of the credential, and the owner: None where the key is refused."""

    key: Any
    scopes: frozenset[str]
    owner: UserDTO | None


@dataclass(kw_only=True)
class ApiKeyService:
    """Looks after keys. `by` is who asks, with the permissions of now; None for an operator."""

    config: ApiKeysConfig
    gateway: AuthGatewayInterface
    events: EventsServiceInterface
    can_act: Callable[[UserDTO], Awaitable[bool]]
    """May keys act for this account?"""
    keys = ApiKeyRepository()
    tokens = BaseRepository[AccessToken]()

    async def find(self, text: str, *, db: AsyncSession) -> Presented | None:
        """Return the key that a key or token proves, None where it proves none.

        One statement, and one more for the owner of a live key; a malformed text costs none.
        """
        credential = security.read(text)
        row = await self._row_of(credential, db=db) if credential else None
        if row is None:
            return None
        owner = await self.gateway.get_user(row.owner_id) if row.is_live else None
        is_usable = owner is not None and await self.can_act(owner)
        return Presented(row, frozenset(row.scopes), owner if is_usable else None)

    async def _row_of(self, credential: security.Credential, *, db: AsyncSession) -> Any | None:
        if credential.is_token:
            return await self.keys.find(BY_TOKEN, db=db, hash=credential.hash)
        row = await self.keys.find(db=db, prefix=credential.prefix)
        is_current = row and hmac.compare_digest(credential.hash, row.secret_hash)
        is_previous = row and hmac.compare_digest(credential.hash, row.previous_hash or "") and row.overlaps
        return row if is_current or is_previous else None

    async def exchange(self, form: TokenForm, *, db: AsyncSession) -> TokenAnswer:
        """Return an access token of a key (RFC 6749 section 4.4); raises InvalidApiKey or InvalidTokenRequest."""
        secret = form.client_secret.get_secret_value()
        found = await self.find(secret, db=db) if secret.startswith(f"{form.client_id}_") else None
        if found is None or found.owner is None or found.key.prefix != form.client_id:  # a token is no client
            raise InvalidApiKey
        scopes = frozenset(form.scope.split()) or found.scopes
        if not scopes <= found.scopes:
            raise InvalidTokenRequest("invalid_scope", "The key does not have every scope that was asked for.")
        token, end = security.new_text(), utcnow() + timedelta(seconds=TOKEN_SECONDS)
        values = {"api_key_id": found.key.id, "scopes": sorted(scopes), "expires_at": end}
        await self.tokens.create(db=db, data={**values, "token_hash": security.hash_of(token)})
        if await self.find(secret, db=db) is None:  # rotated meanwhile; from now on that waits for this token
            raise InvalidApiKey
        await self.tokens.commit(db=db)
        return TokenAnswer(access_token=token, expires_in=TOKEN_SECONDS, scope=" ".join(sorted(scopes)))

    async def get_list(
        self, params: ApiKeyListParams, *, db: AsyncSession, owner_id: int
    ) -> PaginatedResult[ApiKeyRead]:
        """Return one page of the keys of an account."""
        return await self.keys.get_list(db=db, params=params, into=ApiKeyRead, owner_id=owner_id)

    async def get(self, api_key_id: int, *, db: AsyncSession, by: UserDTO) -> ApiKeyRead:
        """Return one key; raises ApiKeyNotFound."""
        key = await self.keys.require(db=db, id=api_key_id)
        if key.owner_id != by.id and READ not in by.permissions:
            raise ApiKeyNotFound
        return ApiKeyRead.model_validate(key)

    async def create(self, data: ApiKeyCreate, *, db: AsyncSession, by: UserDTO) -> NewApiKey:
        """Make a key of the caller, or of a service account, with scopes that the caller holds."""
        owner_id = data.owner_id or by.id
        live, by = await self.keys.count_live(db=db, owner_id=owner_id), await self._now(by)
        if owner_id != by.id and WRITE not in by.permissions:
            raise ActionNotAllowed(missing=WRITE)
        if owner_id != by.id:
            await self._require_reach(owner_id, by)
        if beyond := data.scopes - by.permissions:
            raise ActionNotAllowed(f"You do not hold {', '.join(sorted(beyond))}.")
        if live >= KEYS_PER_OWNER:
            raise ConflictError("The account has as many live keys as it may have: revoke one.")
        text = security.new_text(prefix := security.new_prefix())
        values = {"name": data.name, "scopes": sorted(data.scopes), "expires_at": self._end(data.expires_in_days)}
        hashed = {"prefix": prefix, "secret_hash": security.hash_of(text)}
        key = await self.keys.create(db=db, data={"owner_id": owner_id, **values, **hashed})
        self.events.dispatch(ApiKeyCreated(**_about(key, by), scopes=tuple(key.scopes)))
        await self.keys.commit(db=db)
        return _with_text(key, text)

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
        return _with_text(key, text)

    async def revoke(self, api_key_id: int, *, db: AsyncSession, by: UserDTO | None) -> None:
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

    async def _lock(self, api_key_id: int, *, db: AsyncSession, by: UserDTO | None, of_person: bool = False) -> ApiKey:
        """Return the caller's own key, or with WRITE another's; raises ApiKeyNotFound.

        An administrator revokes the keys of persons (`of_person`), and changes those of service accounts too.
        """
        key = await self.keys.require(db=db, for_update=True, id=api_key_id)
        if by and key.owner_id != by.id:
            if WRITE not in (by := await self._now(by)).permissions:
                raise ApiKeyNotFound
            await self._require_reach(key.owner_id, by, [] if of_person else key.scopes, of_person=of_person)
        return key

    async def _now(self, by: UserDTO) -> UserDTO:
        """Return who asks with the rights of now: a hash or a lock may have been waited for."""
        found = await self.gateway.get_user(by.id)
        if found is None or not await self.can_act(found):
            raise ActionNotAllowed
        return found

    async def _require_reach(
        self, owner_id: int, by: UserDTO, scopes: Collection[str] = (), *, of_person: bool = False
    ) -> None:
        owner = await self.gateway.get_user(owner_id)
        if not of_person and not (owner and owner.is_service_account):
            raise ActionNotAllowed("The keys of a person are made and changed by their owner alone.")
        if owner and not owner.permissions.union(scopes) <= by.permissions:  # it may be granted the scopes later
            raise ActionNotAllowed("The key or its owner holds permissions that you do not hold.")

    def _end(self, days: int | None) -> datetime | None:
        most = self.config.API_KEYS_MAX_DAYS
        if most and (days is None or days > most):
            fault = {"loc": ["body", "expires_in_days"], "msg": f"At most {most} days", "type": "invalid_lifetime"}
            raise InvalidInputError(errors=[fault])
        return None if days is None else utcnow() + timedelta(days=days)


def _about(key: ApiKey, by: UserDTO | None) -> dict[str, Any]:
    return {"user_id": key.owner_id, "actor_id": by and by.id, "api_key_id": key.id}


def _with_text(key: ApiKey, text: str) -> NewApiKey:
    return NewApiKey(**ApiKeyRead.model_validate(key).model_dump(), key=text)
