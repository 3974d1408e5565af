"""Identity of a client for limits and caches: the verified caller if there is one, the address otherwise.

And the marks of dependencies that identify callers, or decide who may call.
"""

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, TypeVar

from fastapi import Depends
from fastapi.requests import HTTPConnection

PUBLIC = "public"
AUTHENTICATED = "authenticated"
_PRINCIPAL = "kit.principal"
_IDENTIFIES = "__kit_identifies_caller__"
_ACCESS = "__kit_access__"

F = TypeVar("F", bound=Callable[..., Any])


def identifies_caller(dependency: F) -> F:
    """Mark a dependency that calls `remember_principal`: limits after it count callers, limits before it addresses."""
    setattr(dependency, _IDENTIFIES, True)
    return dependency


def is_identifying(dependency: Any) -> bool:
    """Check if a dependency is marked by `identifies_caller`."""
    return getattr(dependency, _IDENTIFIES, False) is True


def admits(*needed: str) -> Callable[[F], F]:
    """Mark a dependency that refuses everybody without `needed`: permissions, `role:admin`, or `authenticated`.

    `kit routes` shows it, and whoever reads the mark relies on it: the dependency itself must refuse.
    """

    def mark(dependency: F) -> F:
        setattr(dependency, _ACCESS, needed)
        return dependency

    return mark


def access_of(dependency: Any) -> tuple[str, ...]:
    """Return what a dependency is marked with by `admits`; packages that cannot import it set `__kit_access__`."""
    found = getattr(dependency, _ACCESS, ())
    return found if isinstance(found, tuple) else ()


@admits(PUBLIC)
async def _anybody() -> None:
    """Let everybody in."""


public = Depends(_anybody)
"""Opens a route, a websocket or a router to everybody, on purpose: `dependencies=[public]`."""


def remember_principal(connection: HTTPConnection, principal: str) -> None:
    """Record the authenticated caller: `user:7`, `api-key:3`. Call only after the credential has been verified."""
    connection.scope[_PRINCIPAL] = principal


def principal_of(connection: HTTPConnection) -> str | None:
    """Return the authenticated caller, None before there is one."""
    principal: str | None = connection.scope.get(_PRINCIPAL)
    return principal


async def client_identity(connection: HTTPConnection) -> str:
    """Return the authenticated caller, or the address if there is none."""
    return principal_of(connection) or await client_address(connection)


async def client_address(connection: HTTPConnection) -> str:
    """Return the client's address, for IPv6 its /64 network: that is what one customer is given."""
    host = connection.client.host if connection.client else "unknown"
    try:
        address = ip_address(host)
    except ValueError:
        return host[:64]
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ip_network((int(address), 64), strict=False))
