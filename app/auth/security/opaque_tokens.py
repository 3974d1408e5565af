"""Tokens that mean nothing by themselves: 256 random bits, of which only a hash is kept."""

import base64
import hashlib
import hmac
import secrets


def new_token() -> str:
    """A random token for a session or a mailed link."""
    return secrets.token_urlsafe(32)


def new_salt() -> str:
    """A random value to keep beside a token's hash."""
    return secrets.token_hex(16)


def token_hash(token: str) -> str:
    """What is stored of a token. Fast on purpose: 256 random bits cannot be guessed."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def successor(token: str, *, salt: str, secret: bytes) -> str:
    """The token that follows `token`: the same for everyone who presents it, and never stored."""
    digest = hmac.new(secret, salt.encode() + token.encode("utf-8", "replace"), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
