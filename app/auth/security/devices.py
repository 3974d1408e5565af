"""Device tokens: proof that a client has logged in to an account before (OWASP device cookies). Nothing is stored."""

import hmac
import re
import secrets
from collections.abc import Iterable
from typing import NamedTuple

from pydantic import SecretStr

from app.auth.security.tokens import keyed_hash

_TOKEN = re.compile(r"(([0-9]{1,19})\.([0-9]{1,10})\.([A-Za-z0-9_-]{22}))\.([A-Za-z0-9_-]{43})")


class Device(NamedTuple):
    """A device, known by its nonce, that logged in to an account under a security stamp."""

    user_id: int
    stamp: int
    nonce: str


def new_device_token(user_id: int, stamp: int, *, key: SecretStr) -> str:
    """Return a token for a device that has just logged in."""
    content = f"{user_id}.{stamp}.{secrets.token_urlsafe(16)}"
    return f"{content}.{_proof(content, key)}"


def read_device_token(token: str, *, keys: Iterable[SecretStr]) -> Device | None:
    """Return the device of a token that one of the keys made, None for anything else."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        return None
    content, user_id, stamp, nonce, proof = found.groups()
    if not any(hmac.compare_digest(proof, _proof(content, key)) for key in keys):
        return None
    return Device(int(user_id), int(stamp), nonce)


def _proof(content: str, key: SecretStr) -> str:
    return keyed_hash(f"device-token:{content}", secret=key.get_secret_value().encode())
