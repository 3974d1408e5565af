"""The caller of a request: its principal, the authenticators that prove it, and its identity for limits and caches.

And the marks of dependencies that identify callers, or decide who may call.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, ClassVar, TypeVar

from fastapi import Depends
from fastapi.requests import HTTPConnection
from fastapi.security import APIKeyHeader
from fastapi.security.base import SecurityBase
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.process import Slot

PUBLIC = "public"
AUTHENTICATED = "authenticated"
_PRINCIPAL = "kit.principal"
_IDENTIFIES = "__kit_identifies_caller__"
_ACCESS = "__kit_access__"
_PERMISSION_NAME = re.compile(r"[a-z][a-z0-9_]*:[a-z][a-z0-9_]*")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Permission:
    """A permission that a module checks, as `users:read`, and a text for people. Its `permissions.py` declares it."""

    name: str
    text: str

    def __post_init__(self) -> None:
        if len(self.name) > 64 or not _PERMISSION_NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no permission: write <what>:<action>, as users:read")


@dataclass(frozen=True, kw_only=True)
class Principal:
    """A verified caller. Its text is its identity: `user:7`, `api_key:3`.

    `user` is the account it acts for, whose `permissions` are granted to it, declared by a module, and within `scope`
    where the credential was narrowed. `session_id` is None where no person has logged in;
    `methods` say how it was authenticated, in the words of RFC 8176.
    """

    kind: str
    id: int
    user: Any
    scope: frozenset[str] | None = None
    session_id: int | None = None
    authenticated_at: datetime | None = None
    methods: tuple[str, ...] = ()

    @property
    def permissions(self) -> frozenset[str]:
        """The permissions of `user`: policies that are called with the user alone judge the same."""
        permissions: frozenset[str] = self.user.permissions
        return permissions

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"


class Authenticator(ABC):
    """Verifies one kind of credential. A module offers its own in `authenticators`, in the file of that name."""

    name: ClassVar[str]
    """Name of the scheme in the API document."""
    scheme: SecurityBase
    """Documents the credential: a class of `fastapi.security`. An APIKeyHeader names its header, too."""

    @abstractmethod
    async def authenticate(self, connection: HTTPConnection, *, db: AsyncSession) -> Principal | None:
        """Return the caller, None without a credential of this kind; raises AuthenticationError for a bad one."""


current_authenticators = Slot[Sequence[Authenticator]]()
current_permissions = Slot[Mapping[str, Permission]]()
"""The declared permissions by name."""

asked_permissions: set[str] = set()
"""The permissions that policies of this process ask for."""

asked_roles: set[str] = set()
"""The roles that they ask for: such a role is worth something, whatever it holds."""


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


def remember_principal(connection: HTTPConnection, principal: Principal | str) -> None:
    """Record the authenticated caller, or its identity alone. Call only after the credential has been verified."""
    connection.scope[_PRINCIPAL] = principal
    if isinstance(principal, Principal):
        connection.state.current_user = principal.user


def principal_of(connection: HTTPConnection) -> str | None:
    """Return the identity of the authenticated caller, None before there is one."""
    principal: Principal | str | None = connection.scope.get(_PRINCIPAL)
    return None if principal is None else str(principal)


def private_to(connection: HTTPConnection) -> str | None:
    """Return whom an answer may be shared with: the caller, within the scope of the credential; None for anybody."""
    principal: Principal | str | None = connection.scope.get(_PRINCIPAL)
    scope = getattr(principal, "scope", None)
    return principal_of(connection) if scope is None else f"{principal} {' '.join(sorted(scope))}"


def credential_headers() -> list[str]:
    """Return the headers in which authenticators take keys, beside Authorization."""
    return [one.scheme.model.name for one in current_authenticators() if isinstance(one.scheme, APIKeyHeader)]


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
