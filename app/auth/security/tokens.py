"""Access tokens (JWTs of RFC 9068 type `at+jwt`) and opaque tokens (256 random bits, of which only a hash is stored).

python-jose checks signatures only; every claim is checked here. It takes `exp` of 10**30, digit strings as times and a
list as audience, and lets claims be absent. It has no EdDSA, hence HS256, RS256 and ES256.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeAlias

from jose import jwk, jws
from jose.backends.base import Key
from jose.exceptions import JOSEError
from jose.utils import base64url_decode
from pydantic import BaseModel, ConfigDict, Field

from app.auth.exceptions import InvalidAccessToken

Algorithm: TypeAlias = Literal["HS256", "RS256", "ES256"]

MIN_KEY_BYTES = 32
_TYPE = "at+jwt"
_CLOCK_SKEW = timedelta(minutes=5)
"""Longest accepted lag of the clock of a host that reads tokens."""
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_MAX_LENGTH = 4096
_MAX_ROLES = 32
"""Roles that a token names: with all of very many it would be longer than what is read."""

IdText: TypeAlias = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,17}$")]
"""A row id as text: within every database's bigint."""


class AccessClaims(BaseModel):
    """The claims of an access token: no others, JSON's own types and no conversion.

    `roles` and `scope` (RFC 9068 section 2.2.3) inform clients. Nothing here reads them: a session's own count.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    iss: str
    aud: str
    sub: IdText
    iat: int
    exp: int
    jti: str = Field(min_length=1, max_length=64)
    sid: IdText
    roles: list[str] = []
    scope: str = ""


@dataclass(frozen=True)
class SigningKey:
    """One signing key: `private` signs, `public` verifies (the same for HS256)."""

    kid: str
    private: Key
    public: Key

    @classmethod
    def load(cls, value: str, algorithm: Algorithm) -> "SigningKey":
        """Load a key from its setting: the secret itself for HS256, a PEM private key otherwise.

        Raises ValueError, whose message does not repeat the value.
        """
        kid = hashlib.sha256(b"kid" + value.encode()).hexdigest()[:8]
        try:
            if algorithm == "HS256":
                if len(value.encode()) < MIN_KEY_BYTES:
                    raise ValueError(f"is shorter than {MIN_KEY_BYTES} bytes")
                key = jwk.construct(value, algorithm)
                return cls(kid, key, key)
            private = jwk.construct(value.replace("\\n", "\n"), algorithm)
            _check_strength(private, algorithm)
            return cls(kid, private, private.public_key())
        except JOSEError as exc:
            raise ValueError(f"is no key for {algorithm}") from exc


def _check_strength(key: Any, algorithm: Algorithm) -> None:
    if key.is_public():
        raise ValueError("is a public key: the private key is needed")
    prepared = key.prepared_key
    if algorithm == "RS256" and prepared.key_size < 2048:
        raise ValueError("is an RSA key of less than 2048 bits")
    if algorithm == "ES256" and prepared.curve.name != "secp256r1":
        raise ValueError("is not on the curve P-256, which ES256 needs")


@dataclass(frozen=True, kw_only=True)
class AccessTokens:
    """Makes and reads access tokens. The first key signs, all keys verify."""

    keys: Sequence[SigningKey]
    algorithm: Algorithm
    issuer: str
    audience: str
    lifetime: timedelta

    def issue(
        self,
        *,
        user_id: int,
        session_id: int,
        session_ends: datetime,
        now: datetime,
        roles: Iterable[str] = (),
        scope: str | None = None,
    ) -> tuple[str, int]:
        """Return a token for the session and its lifetime in seconds, never longer than the session.

        `now` is the database's: a host whose clock is ahead would make tokens that the others refuse.
        """
        expires = min(now + self.lifetime, session_ends)
        claims = AccessClaims(
            iss=self.issuer,
            aud=self.audience,
            sub=str(user_id),
            iat=int(now.timestamp()),
            exp=int(expires.timestamp()),
            jti=secrets.token_urlsafe(16),
            sid=str(session_id),
            roles=sorted(roles)[:_MAX_ROLES],
            scope=scope or "",
        )
        signer, payload = self.keys[0], claims.model_dump(exclude_defaults=True)
        header = {"typ": _TYPE, "kid": signer.kid}
        token = jws.sign(payload, signer.private, headers=header, algorithm=self.algorithm)
        return token, claims.exp - claims.iat

    def public_keys(self) -> list[dict[str, Any]]:
        """Return the public keys of the ring as JWKs (RFC 7517); none for HS256, whose keys are secret."""
        if self.algorithm == "HS256":
            return []
        return [{**key.public.to_dict(), "kid": key.kid, "use": "sig"} for key in self.keys]

    def read(self, token: str) -> AccessClaims:
        """Return the claims of a valid token; raises InvalidAccessToken."""
        if len(token) > _MAX_LENGTH or not _COMPACT.fullmatch(token):
            raise InvalidAccessToken
        try:
            _check_names(token)
            key = self._key_for(jws.get_unverified_header(token))
            payload = jws.verify(token, key.public, algorithms=[self.algorithm])
            claims = AccessClaims.model_validate_json(payload)
        except (JOSEError, ValueError, RecursionError) as exc:
            raise InvalidAccessToken from exc
        self._check(claims)
        return claims

    def _key_for(self, header: dict[str, object]) -> SigningKey:
        for key in self.keys:
            if header == {"alg": self.algorithm, "typ": _TYPE, "kid": key.kid}:
                return key
        raise InvalidAccessToken

    def _check(self, claims: AccessClaims) -> None:
        now = datetime.now(UTC).timestamp()
        ours = claims.iss == self.issuer and claims.aud == self.audience
        in_force = claims.iat <= now + _CLOCK_SKEW.total_seconds() and now < claims.exp
        # A lifetime longer than ours means a forged token, whoever has the key.
        if not (ours and in_force and claims.exp - claims.iat <= self.lifetime.total_seconds()):
            raise InvalidAccessToken


def _check_names(token: str) -> None:
    """Raise ValueError for a repeated member: parsers disagree on which one counts (RFC 7515 section 4)."""
    for part in token.split(".")[:2]:
        _STRICT.decode(base64url_decode(part.encode()).decode())


def _unique(members: list[tuple[str, object]]) -> dict[str, object]:
    if len(found := dict(members)) < len(members):
        raise ValueError("repeated member")
    return found


_STRICT = json.JSONDecoder(object_pairs_hook=_unique)


def new_token() -> str:
    """Return a random token for a session or a mailed link."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """Hash a token for storage. Fast on purpose: 256 random bits cannot be guessed."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def successor(token: str, *, salt: str, secret: bytes) -> str:
    """Return the token that follows `token`: the same for everyone who presents it, and never stored."""
    return keyed_hash(salt + token, secret=secret)


def keyed_hash(text: str, *, secret: bytes) -> str:
    """Return what only the holder of `secret` can make of `text`; let each use begin its text in its own way."""
    digest = hmac.new(secret, text.encode("utf-8", "replace"), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
