"""The module's settings: what stops a start, and which keys can be used."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import ValidationError

from app.auth.config import AuthConfig
from app.auth.exceptions import InvalidAccessToken
from app.auth.security.tokens import SigningKey

STRONG = "5f2c8e1b7d3a496083bfae2d61c7905e"
PREVIOUS = "fedcba9876543210fedcba9876543210"


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


class TestProblems:
    def test_good_settings_have_none(self) -> None:
        assert AuthConfig(JWT_SECRET_KEY=STRONG, FIRST_USER_PASSWORD="a good long one").problems() == []

    def test_every_fault_is_named_at_once_and_no_value_is_shown(self) -> None:
        config = AuthConfig(
            JWT_SECRET_KEY="changeme-changeme-changeme-changeme",
            JWT_PREVIOUS_SECRET_KEY="changethis-changethis-changethis-x",
            JWT_NEXT_SECRET_KEY="0123456701234567012345670123456701234567",
        )

        problems = config.problems()

        names = ["JWT_SECRET_KEY", "JWT_PREVIOUS_SECRET_KEY", "JWT_NEXT_SECRET_KEY"]
        assert [fault.split()[0] for fault in problems] == names
        assert not any("changeme" in fault for fault in problems)

    @pytest.mark.parametrize("password", ["changethis", "PASSWORD", "admin@example.com", "short", "x" * 5000])
    def test_no_admin_password_stops_a_start(self, password: str) -> None:
        assert AuthConfig(JWT_SECRET_KEY=STRONG, FIRST_USER_PASSWORD=password).problems() == []

    @pytest.mark.parametrize(
        "values",
        [
            {"JWT_SECRET_KEY": "short"},
            {"JWT_SECRET_KEY": STRONG, "JWT_PREVIOUS_SECRET_KEY": "short"},
            {"JWT_SECRET_KEY": STRONG, "JWT_ALGORITHM": "RS256"},
            {"JWT_SECRET_KEY": None, "JWT_ALGORITHM": "RS256"},
            {"JWT_SECRET_KEY": STRONG, "JWT_ALGORITHM": "none"},
            {"JWT_SECRET_KEY": STRONG, "PASSWORD_MIN_LENGTH": 7},
            {"JWT_SECRET_KEY": STRONG, "FIRST_USER_EMAIL": "nobody"},
            {"JWT_SECRET_KEY": STRONG, "FIRST_USER_USERNAME": "a@b"},
        ],
    )
    def test_what_cannot_work_stops_development_too(self, values: dict[str, Any]) -> None:
        with pytest.raises(ValidationError) as caught:
            AuthConfig(**values)
        assert STRONG not in str(caught.value)


class TestKeys:
    def test_asymmetric_keys_sign_and_verify(self) -> None:
        keys = {
            "RS256": pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
            "ES256": pem(ec.generate_private_key(ec.SECP256R1())).replace("\n", "\\n"),
        }
        for algorithm, key in keys.items():
            tokens = AuthConfig(JWT_SECRET_KEY=key, JWT_ALGORITHM=algorithm).access_tokens
            token, _ = tokens.issue(
                user_id=1, session_id=2, session_ends=datetime.now(UTC) + timedelta(days=1), now=datetime.now(UTC)
            )
            assert tokens.read(token).sub == "1"

    def test_weak_and_wrong_keys_are_refused(self) -> None:
        small = pem(rsa.generate_private_key(public_exponent=65537, key_size=1024))
        curve = pem(ec.generate_private_key(ec.SECP384R1()))
        public = public_pem(ec.generate_private_key(ec.SECP256R1()))
        for value, algorithm, reason in [
            (small, "RS256", "less than 2048 bits"),
            (curve, "ES256", "P-256"),
            (public, "ES256", "public key"),
            (STRONG, "ES256", "no key for ES256"),
            (public, "HS256", "no key for HS256"),
            ("short", "HS256", "shorter than 32 bytes"),
        ]:
            with pytest.raises(ValueError, match=reason):
                SigningKey.load(value, algorithm)  # type: ignore[arg-type]  # a plain loop

    def test_the_previous_key_still_verifies_and_no_longer_signs(self) -> None:
        ends = datetime.now(UTC) + timedelta(days=1)
        old = AuthConfig(JWT_SECRET_KEY=PREVIOUS).access_tokens
        new = AuthConfig(JWT_SECRET_KEY=STRONG, JWT_PREVIOUS_SECRET_KEY=PREVIOUS).access_tokens
        old_token, _ = old.issue(user_id=1, session_id=2, session_ends=ends, now=datetime.now(UTC))
        new_token, _ = new.issue(user_id=1, session_id=2, session_ends=ends, now=datetime.now(UTC))

        assert new.read(old_token).sid == "2"
        assert new.read(new_token).sid == "2"
        with pytest.raises(InvalidAccessToken):
            old.read(new_token)

    def test_a_token_never_outlives_its_session(self) -> None:
        tokens = AuthConfig(JWT_SECRET_KEY=STRONG).access_tokens

        token, seconds = tokens.issue(
            user_id=1, session_id=2, session_ends=datetime.now(UTC) + timedelta(seconds=60), now=datetime.now(UTC)
        )

        assert 58 <= seconds <= 60
        assert tokens.read(token).exp <= datetime.now(UTC).timestamp() + 60
