"""The public keys at /.well-known/jwks.json."""

import json
from collections.abc import Callable

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jose import jwk, jws
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig
from tests.auth.test_config import pem
from tests.factories.user import UserFactory
from tests.utils import login_user

URL = "/.well-known/jwks.json"
PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "k"}


def key_of(algorithm: str) -> str:
    if algorithm == "ES256":
        return pem(ec.generate_private_key(ec.SECP256R1()))
    return pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))


class TestRead:
    @pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
    async def test_the_document_alone_verifies_a_token(
        self, db: AsyncSession, client: httpx.AsyncClient, configure: Callable[..., AuthConfig], algorithm: str
    ) -> None:
        user = await UserFactory.create()
        names = ("JWT_SECRET_KEY", "JWT_PREVIOUS_SECRET_KEY", "JWT_NEXT_SECRET_KEY")
        configure(JWT_ALGORITHM=algorithm, **{name: key_of(algorithm) for name in names})
        token = (await login_user(client, user))["access_token"]

        answer = await client.get(URL, headers={"Authorization": ""})

        assert answer.headers["Cache-Control"] == "public, max-age=300"
        keys = {key["kid"]: key for key in answer.json()["keys"]}
        assert len(keys) == 3
        assert {(key["alg"], key["use"]) for key in keys.values()} == {(algorithm, "sig")}
        assert not any(PRIVATE & set(key) for key in keys.values())
        found = keys[jws.get_unverified_header(token)["kid"]]
        claims = json.loads(jws.verify(token, jwk.construct(found), algorithms=[algorithm]))
        assert claims["sub"] == str(user.id)

    async def test_a_shared_secret_is_never_shown(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        assert (await client.get(URL)).json() == {"keys": []}
