"""Checks of access tokens: every forged token is a 401."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jose import jws
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import get_auth_config
from app.auth.models import AuthSession, User, UserStatus
from app.core.db import utcnow
from tests.factories.user import UserFactory
from tests.utils import freeze, login_user

KEY = get_auth_config().JWT_SECRET_KEY.get_secret_value()  # type: ignore[union-attr]  # set in .test.env
KID = hashlib.sha256(b"kid" + KEY.encode()).hexdigest()[:8]
MISSING = object()


def segment(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def sign(header: Any, claims: Any, key: bytes = KEY.encode()) -> str:
    """A token by hand: no library between the test and the bytes."""
    signed = f"{segment(header)}.{segment(claims)}"
    return f"{signed}.{segment(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


def header(**changes: Any) -> dict[str, Any]:
    return without_missing({"alg": "HS256", "typ": "at+jwt", "kid": KID} | changes)


def without_missing(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not MISSING}


async def claims_of(client: httpx.AsyncClient) -> dict[str, Any]:
    """The claims of a token that works."""
    user = await UserFactory.create()
    tokens = await login_user(client, user)
    claims: dict[str, Any] = json.loads(jws.get_unverified_claims(tokens["access_token"]))
    return claims


async def status_of(client: httpx.AsyncClient, token: str) -> int:
    answer = await client.get("/api/v1/profile", headers={"Authorization": f"Bearer {token}"})
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] in ("invalid_token", "not_authenticated")
    return answer.status_code


class TestShape:
    async def test_header_and_claims_are_exactly_these(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        user = await UserFactory.create()
        token = (await login_user(client, user))["access_token"]

        assert jws.get_unverified_header(token) == {"alg": "HS256", "typ": "at+jwt", "kid": KID}
        claims = json.loads(jws.get_unverified_claims(token))
        assert set(claims) == {"iss", "aud", "sub", "iat", "exp", "jti", "sid", "roles"}
        assert claims["sub"] == str(user.id)
        assert claims["exp"] - claims["iat"] == 15 * 60

    async def test_a_token_made_by_hand_as_ours_is_works(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        """Without this the refusals below would prove nothing."""
        assert await status_of(client, sign(header(), await claims_of(client))) == 200


class TestHeader:
    @pytest.mark.parametrize(
        "changes",
        [
            {"alg": "none"},
            {"alg": "None"},
            {"alg": "HS512"},
            {"alg": "RS256"},
            {"alg": ["HS256"]},
            {"alg": MISSING},
            {"typ": "JWT"},
            {"typ": "AT+JWT"},
            {"typ": MISSING},
            {"kid": "00000000"},
            {"kid": ""},
            {"kid": None},
            {"kid": [KID]},
            {"kid": {"a": 1}},
            {"kid": "../../dev/null"},
            {"kid": MISSING},
            {"jwk": {"kty": "oct", "k": "AAAA"}},
            {"jku": "https://evil.example.com/keys"},
            {"crit": ["exp"]},
        ],
        ids=str,
    )
    async def test_any_other_header_is_refused(
        self, db: AsyncSession, client: httpx.AsyncClient, changes: dict[str, Any]
    ) -> None:
        assert await status_of(client, sign(header(**changes), await claims_of(client))) == 401

    @pytest.mark.parametrize("value", [[], "text", 1, None, b"\xff\xfe", b"{", b"[" * 1500])
    async def test_a_header_that_is_no_object_is_refused(
        self, db: AsyncSession, client: httpx.AsyncClient, value: Any
    ) -> None:
        assert await status_of(client, sign(value, await claims_of(client))) == 401


class TestRepeatedNames:
    """RFC 7515 section 4: parsers disagree on which of two members counts."""

    @pytest.mark.parametrize("name", ["alg", "typ", "kid"])
    @pytest.mark.parametrize("value", ["none", "HS256"])
    async def test_in_a_header_are_refused(
        self, db: AsyncSession, client: httpx.AsyncClient, name: str, value: str
    ) -> None:
        text = f'{{"{name}": "{value}", {json.dumps(header())[1:]}'

        assert await status_of(client, sign(text.encode(), await claims_of(client))) == 401

    @pytest.mark.parametrize("name", ["iss", "sub", "exp", "sid"])
    async def test_in_claims_are_refused(self, db: AsyncSession, client: httpx.AsyncClient, name: str) -> None:
        claims = await claims_of(client)
        text = f'{{"{name}": "1", {json.dumps(claims)[1:]}'

        assert await status_of(client, sign(header(), text.encode())) == 401


class TestKey:
    @pytest.mark.parametrize("key", [b"", b"short", KEY.encode()[:-1], KEY.encode() + b"x", KEY.upper().encode()])
    async def test_another_key_is_refused(self, db: AsyncSession, client: httpx.AsyncClient, key: bytes) -> None:
        assert await status_of(client, sign(header(), await claims_of(client), key)) == 401

    async def test_another_key_with_its_own_kid_is_refused(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        key = b"another-key-of-more-than-32-bytes-in-length"
        kid = hashlib.sha256(b"kid" + key).hexdigest()[:8]

        assert await status_of(client, sign(header(kid=kid), await claims_of(client), key)) == 401

    async def test_an_asymmetric_signature_is_refused(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        claims = await claims_of(client)
        token = jws.sign(claims, private.decode(), headers={"typ": "at+jwt", "kid": KID}, algorithm="RS256")

        assert await status_of(client, token) == 401

    async def test_a_changed_or_missing_signature_is_refused(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        token = sign(header(), await claims_of(client))
        head, body, _ = token.split(".")
        other = segment(json.loads(base64.urlsafe_b64decode(body + "==")) | {"sub": "999"})

        for forged in (f"{head}.{body}.", f"{head}.{body}", f"{head}.{other}.{token.split('.')[2]}", token[:-4]):
            assert await status_of(client, forged) == 401


class TestClaims:
    @pytest.mark.parametrize("name", ["iss", "aud", "sub", "iat", "exp", "jti", "sid"])
    @pytest.mark.parametrize("value", [MISSING, None, True, [], {}, 1.5, ""], ids=str)
    async def test_each_claim_is_required_and_typed(
        self, db: AsyncSession, client: httpx.AsyncClient, name: str, value: Any
    ) -> None:
        claims = without_missing(await claims_of(client) | {name: value})

        assert await status_of(client, sign(header(), claims)) == 401

    @pytest.mark.parametrize(
        "changes",
        [
            {"iss": "evil.example.com"},
            {"aud": "evil.example.com"},
            {"aud": ["localhost"]},
            {"iss": ["localhost"]},
            {"sub": 1},
            {"sub": "0"},
            {"sub": "-1"},
            {"sub": "01"},
            {"sub": " 1"},
            {"sub": "1\n"},
            {"sub": "one"},
            {"sub": "٣"},
            {"sub": "9" * 19},
            {"sub": "9" * 400},
            {"sid": 1},
            {"sid": "9" * 18},
            {"sid": "' OR 1=1 --"},
            {"jti": "x" * 65},
            {"exp": "9999999999"},
            {"exp": 10**30},
            {"exp": 9999999999},
            {"exp": 1},
            {"exp": -1},
            {"iat": "1"},
            {"iat": 1},
            {"iat": 10**30},
            {"nbf": 9999999999},
            {"scope": ["users:read"]},
            {"roles": "admin"},
            {"roles": [1]},
            {"permissions": ["users:read"]},
        ],
        ids=str,
    )
    async def test_another_value_is_refused(
        self, db: AsyncSession, client: httpx.AsyncClient, changes: dict[str, Any]
    ) -> None:
        claims = await claims_of(client) | changes

        assert await status_of(client, sign(header(), claims)) == 401

    async def test_scope_and_roles_grant_nothing(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        told = {"scope": "users:read", "roles": ["admin"]}
        token = sign(header(), await claims_of(client) | told)

        assert await status_of(client, token) == 200
        answer = await client.get("/api/v1/users", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 403

    @pytest.mark.parametrize("payload", [b"", b"null", b"[]", b'"text"', b"1", b"{", b"\xff", b"[" * 2500, b"NaN"])
    async def test_claims_that_are_no_object_are_refused(
        self, db: AsyncSession, client: httpx.AsyncClient, payload: bytes
    ) -> None:
        assert await status_of(client, sign(header(), payload)) == 401

    @pytest.mark.parametrize("number", ["Infinity", "1e999", "NaN", "1" + "0" * 1000, "1.0"])
    async def test_numbers_json_should_not_have_are_refused(
        self, db: AsyncSession, client: httpx.AsyncClient, number: str
    ) -> None:
        text = json.dumps(await claims_of(client) | {"exp": "EXP"}).replace('"EXP"', number)

        assert await status_of(client, sign(header(), text.encode())) == 401

    async def test_a_token_from_the_future_is_refused_beyond_the_clock_skew(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        claims, now = await claims_of(client), int(time.time())

        assert await status_of(client, sign(header(), claims | {"iat": now + 240, "exp": now + 300})) == 200
        assert await status_of(client, sign(header(), claims | {"iat": now + 360, "exp": now + 420})) == 401

    async def test_it_expires(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        token = sign(header(), await claims_of(client))

        with freeze("2199-01-01"):
            assert await status_of(client, token) == 401


class TestBearer:
    @pytest.mark.parametrize(
        "value",
        [
            "",
            "Bearer",
            "Bearer ",
            "Bearer a.b",
            "Bearer a.b.c.d",
            "Bearer ..",
            "Bearer null",
            "Basic dXNlcjpwYXNz",
            "Token x",
            "Bearer " + "a" * 5000 + ".b.c",
            "Bearer a b c",
        ],
    )
    async def test_what_is_no_token_is_refused(self, db: AsyncSession, client: httpx.AsyncClient, value: str) -> None:
        answer = await client.get("/api/v1/profile", headers={"Authorization": value})

        assert answer.status_code == 401

    async def test_bytes_beyond_ascii_are_refused(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        answer = await client.get("/api/v1/profile", headers={b"Authorization": b"Bearer \xff.\xfe.\xfd"})

        assert answer.status_code == 401

    async def test_no_header_is_refused(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        answer = await client.get("/api/v1/profile")

        assert answer.status_code == 401
        assert answer.json()["code"] == "not_authenticated"

    async def test_a_refresh_token_is_no_bearer_and_the_reverse(
        self, db: AsyncSession, client: httpx.AsyncClient
    ) -> None:
        tokens = await login_user(client, await UserFactory.create())

        assert await status_of(client, tokens["refresh_token"]) == 401
        answer = await client.post("/api/v1/auth/refresh-token", json={"refresh_token": tokens["access_token"]})
        assert answer.status_code == 401

    async def test_a_token_in_the_query_is_no_bearer(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        tokens = await login_user(client, await UserFactory.create())
        del client.headers["Authorization"]

        answer = await client.get("/api/v1/profile", params={"access_token": tokens["access_token"]})

        assert answer.status_code == 401


class TestSessionAndUser:
    async def test_the_session_must_be_the_users_own(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        mine, other = await claims_of(client), await claims_of(client)

        assert await status_of(client, sign(header(), mine | {"sid": other["sid"]})) == 401

    @pytest.mark.parametrize("column", ["revoked_at", "expires_at"])
    async def test_an_ended_session_is_refused(self, db: AsyncSession, client: httpx.AsyncClient, column: str) -> None:
        claims = await claims_of(client)
        await db.execute(update(AuthSession).where(AuthSession.id == int(claims["sid"])).values(**{column: utcnow()}))
        await db.commit()

        assert await status_of(client, sign(header(), claims)) == 401

    async def test_a_deleted_user_is_refused(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        claims = await claims_of(client)
        await db.execute(update(User).where(User.id == int(claims["sub"])).values(deleted_at=utcnow()))
        await db.commit()

        assert await status_of(client, sign(header(), claims)) == 401

    async def test_a_disabled_user_may_do_nothing(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        claims = await claims_of(client)
        await db.execute(update(User).where(User.id == int(claims["sub"])).values(status_id=UserStatus.DISABLED))
        await db.commit()

        answer = await client.patch("/api/v1/profile", json={"username": "other"})

        assert answer.status_code == 403
        assert answer.json()["code"] == "account_not_active"
