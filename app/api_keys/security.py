"""Texts of keys and access tokens: `kit_<public id>_<secret><checksum>`, which scanners of secrets find by

    kit_(?:at|[0-9A-Za-z]{12})_[0-9A-Za-z]{49}

The secret has 256 bits. The checksum is the CRC-32 of all before it, so a lookalike is no finding and costs no query.
"""

import hashlib
import re
import secrets
import string
import zlib

PROJECT = "kit"
"""What every text begins with. Rename it in a fork before the first key is made."""
TOKEN = f"{PROJECT}_at"
"""The prefix of every access token."""

_ALPHABET = string.digits + string.ascii_letters
_TEXT = re.compile(rf"({TOKEN}|{PROJECT}_[0-9A-Za-z]{{12}})_[0-9A-Za-z]{{49}}")


def prefix_of(text: str) -> str | None:
    """Return the public prefix of a key or token; None where it is malformed or its checksum is wrong."""
    found = _TEXT.fullmatch(text)
    return found[1] if found and text[-6:] == _checksum(text[:-6]) else None


def new_prefix() -> str:
    """Return the public prefix of a new key."""
    return f"{PROJECT}_{_random(12)}"


def new_text(prefix: str = TOKEN) -> str:
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
