"""Normal forms and unique keys of addresses and user names."""

import re
import secrets
import unicodedata
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from email_validator import EmailNotValidError, ValidatedEmail, validate_email

USERNAME_PATTERN = r"^[A-Za-z0-9_.-]+$"
USERNAME_MIN, USERNAME_MAX = 3, 32
MAX_KEY_LENGTH = 320
SERVICE_DOMAIN = "service.invalid"
"""Domain in the addresses of service accounts. It is reserved (RFC 6761), so nobody can register with it."""

# Default-ignorable characters that the validator lets through: two addresses would look alike.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def normalize_email(address: str) -> str:
    """Return the address as it is stored and written to: spelling kept, Unicode composed, domain in lower case.

    Raises ValueError where it is no address. Deliverability is not checked: that would be a look-up per request.
    """
    if _INVISIBLE.search(address):
        raise ValueError("not a valid e-mail address")
    email_key(address)
    return _parse(address).normalized


def email_key(address: str) -> str:
    """Return the unique key of an address: Unicode's compatibility caseless form, the domain in its ASCII form.

    Mail always goes to the stored address, never to one that merely has the same key. Raises ValueError as above.
    """
    parts = _parse(address)
    key = f"{_caseless(parts.local_part)}@{parts.ascii_domain.lower()}"
    if len(key) > MAX_KEY_LENGTH:  # one character may become eighteen when its case is folded
        raise ValueError("not a valid e-mail address")
    return key


def _parse(address: str) -> ValidatedEmail:
    if "=?" in address:  # an encoded word (RFC 2047): no mail can be written to it without it being decoded
        raise ValueError("not a valid e-mail address")
    try:
        return validate_email(address, check_deliverability=False)
    except EmailNotValidError as exc:
        raise ValueError("not a valid e-mail address") from exc


def username_key(username: str) -> str:
    """Return the unique key of a user name."""
    return username.casefold()


def is_username(value: str) -> bool:
    """Return True where `value` is a well-formed user name."""
    return USERNAME_MIN <= len(value) <= USERNAME_MAX and re.fullmatch(USERNAME_PATTERN, value) is not None


def usernames_from(address: str) -> Iterator[str]:
    """Yield user names made of an address, to be tried in order: its local part, then the same with random digits."""
    local = address.partition("@")[0].partition("+")[0]
    ascii_only = unicodedata.normalize("NFKD", local).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9_.-]", "", ascii_only)[:USERNAME_MAX] or "user"
    if is_username(stem):
        yield stem
    for digits in (2, 4, 6, 8, 8):
        yield f"{stem[: USERNAME_MAX - digits]}{secrets.randbelow(10**digits):0{digits}}"


def _caseless(text: str) -> str:
    """Unicode 3.13, D146: compatibility caseless matching folds twice, as folding may undo the normal form."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFKC", folded.casefold())


def network_of(address: str) -> str | None:
    """Return the network of a client, within which providers change its address; None where that is no address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return None
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return str(ip_network((int(ip), 24 if ip.version == 4 else 48), strict=False))
