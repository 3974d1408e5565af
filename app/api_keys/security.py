"""Texts of keys and access tokens: `kit_<public id>_<secret><checksum>`, which scanners of secrets find by

    kit_(?:at|[0-9A-Za-z]{12})_[0-9A-Za-z]{49}

The secret has 256 bits. The checksum is the CRC-32 of all before it, so a lookalike is no finding and costs no query.
"""

import hashlib
import re
import secrets
import string
import zlib
from typing import NamedTuple

PROJECT = "kit"
"""What every text begins with. Rename it in a fork before the first key is made."""

_TOKEN = f"{PROJECT}_at"
_ALPHABET = string.digits + string.ascii_letters
_TEXT = re.compile(rf"({_TOKEN}|{PROJECT}_[0-9A-Za-z]{{12}})_[0-9A-Za-z]{{49}}")


class Credential(NamedTuple):
    """A well-formed text: its public prefix, and the hash that is stored of it."""

    prefix: str
    hash: str
    is_token: bool


def read(text: str) -> Credential | None:
    """Take a text apart; None where it is malformed or its checksum is wrong."""
    found = _TEXT.fullmatch(text)
    if found is None or text[-6:] != _checksum(text[:-6]):
        return None
    return Credential(found[1], hash_of(text), found[1] == _TOKEN)


def new_prefix() -> str:
    """Return the public prefix of a new key."""
    return f"{PROJECT}_{_random(12)}"


def new_text(prefix: str = _TOKEN) -> str:
    """Return a new text with this prefix, that of a key; by default an access token."""
    body = f"{prefix}_{_random(43)}"
    return body + _checksum(body)


def hash_of(text: str) -> str:
    """Return the hash that is stored of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    return "".join(_ALPHABET[number // 62**place % 62] for place in range(5, -1, -1))
