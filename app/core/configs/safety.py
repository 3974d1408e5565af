"""Checks of setting values for every environment but `local` and `testing`."""

import zlib
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from itertools import pairwise
from typing import Any

from pydantic import AnyHttpUrl, SecretStr

MIN_SECRET_BYTES = 32
MAX_TRUSTED = {4: 2**22, 6: 2**104}
"""Public addresses that may be trusted in all. The networks of the largest content delivery networks are smaller."""

_PLACEHOLDER_WORDS = ("changeme", "change-me", "change_me", "changethis", "placeholder", "your-secret", "example")
# What people type instead of a random value; deflate stores what it finds in here in next to no space.
_PATTERNS = b"""qwertyuiopasdfghjklzxcvbnm1234567890-=!@#$%^&*()QWERTYUIOPASDFGHJKLZXCVBNM
    abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdef passwordPasswordPASSWORD secretSecretSECRET"""
_MIN_INFORMATION = 24
_DEFAULT_PASSWORDS = {"admin", "app", "changeme", "guest", "password", "postgres", "redis", "root", "secret", "test"}


def _is_pattern(value: bytes) -> bool:
    """True if a value repeats itself, counts up or down, or follows the keyboard.

    Measured by what deflate makes of it, and of the steps from one byte to the next: 32 random hexadecimal digits
    stay above 32 bytes, `0123456701234567...` and `passwordpassword...` shrink below 16.
    """
    steps = bytes((after - before) % 256 for before, after in pairwise(value))
    for text in (value, steps):
        deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS, zdict=_PATTERNS)
        if len(deflate.compress(text) + deflate.flush()) < _MIN_INFORMATION:
            return True
    return False


def weak_secret(secret: SecretStr | None) -> str | None:
    """Return the reason to refuse a secret, or None."""
    value = secret.get_secret_value() if secret else ""
    if not value:
        return f"is missing: set at least {MIN_SECRET_BYTES} random bytes"
    if any(word in value.lower() for word in _PLACEHOLDER_WORDS) or len(set(value)) < 8:
        return "is a placeholder: set a random value"
    if len(value.encode()) < MIN_SECRET_BYTES:
        return f"is shorter than {MIN_SECRET_BYTES} bytes"
    return "is a pattern: set a random value" if _is_pattern(value.encode()) else None


def is_default_password(password: str | None, user: str | None) -> bool:
    """Return True for a password that products or their guides come with, or that is the name of its user."""
    return password is not None and password.lower() in {*_DEFAULT_PASSWORDS, (user or "").lower()}


def untrustworthy_proxies(proxies: Iterable[str]) -> str | None:
    """Return the reason not to trust the forwarded headers of these proxies, or None."""
    try:
        networks: list[Any] = [_unmapped(ip_network(proxy)) for proxy in proxies]
    except ValueError:
        return "must name addresses or networks: whoever else is trusted can claim to be anyone"
    for version, most in MAX_TRUSTED.items():
        # Collapsed first: 0.0.0.0/1 and 128.0.0.0/1 are 0.0.0.0/0.
        merged = collapse_addresses(network for network in networks if network.version == version)
        if sum(network.num_addresses for network in merged if network.is_global) > most:
            return "trusts a large part of the internet, where anyone can claim to be anyone: name your proxies alone"
    return None


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """Return the IPv4 network that an IPv4-mapped IPv6 network stands for; any other unchanged."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    return ip_network((mapped, network.prefixlen - 96)) if mapped and network.prefixlen >= 96 else network


def unreachable_link(url: AnyHttpUrl) -> str | None:
    """Return the reason not to send links with secrets to `url`, or None."""
    if url.scheme != "https":
        return "must begin with https: the links in mails carry secrets"
    host = (url.host or "").strip("[]").rstrip(".")
    try:
        address = ip_address(host)
    except ValueError:
        is_local = host == "localhost" or host.endswith(".localhost")
    else:
        address = getattr(address, "ipv4_mapped", None) or address
        is_local = address.is_loopback or address.is_unspecified
    return "names this machine: the links in mails would lead their readers to their own" if is_local else None
