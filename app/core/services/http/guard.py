"""Guard for URLs from users: connect to public addresses only, and to the very address that was checked.

The check is part of connecting, so a DNS answer that changes afterwards (rebinding) has no effect, and no spelling of
an address (0x7f.1, 2130706433, ::ffff:127.0.0.1) is read differently by check and connection.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpcore2
import httpx2

from app.core.configs.integrations import Integration
from app.core.exceptions import RequestRefused

MAX_ADDRESSES = 4
"""Most addresses of one name that are tried."""

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# What `is_global` of some Python passes: protocol assignments, with Oracle's metadata and Teredo; 6to4 and its relays,
# which lead to any IPv4 address; documentation; Azure's metadata and DNS, public by its number alone.
_SPECIAL = [
    ip_network(each)
    for each in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16", "2001::/23", "2002::/16", "3fff::/20")
]

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


# Threads of its own: a name server of a stranger that hangs would hold those that look up the database's name.
_lookups = ThreadPoolExecutor(4, thread_name_prefix="guarded-lookup")


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of `host`."""
    asked = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_lookups, asked)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(text: str) -> bool:
    """Return True for a public address: not private, loopback, link-local, multicast, reserved or cloud metadata."""
    address = ip_address(text)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            return is_public(str(address.ipv4_mapped))
        if address in _NAT64:
            return is_public(str(IPv4Address(address.packed[-4:])))
        if address not in _GLOBAL_UNICAST:
            return False
    is_special = address.is_multicast or address.is_reserved or any(address in network for network in _SPECIAL)
    return address.is_global and not is_special


def check_url(url: httpx2.URL, ports: Collection[int]) -> None:
    """Raise RequestRefused unless the URL has a host, no user, and one of these ports."""
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    if not url.raw_host or url.userinfo or port is None or port not in ports:
        raise RequestRefused


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens the connections of a guarded integration."""

    def __init__(self, integration: Integration, lookup: Resolve = resolve) -> None:
        self._integration = integration
        self._lookup = lookup
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  of the interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._lookup(host, port)
                if not addresses or not all(map(self._is_allowed, addresses)):
                    raise RequestRefused
                return await self._connect(addresses[:MAX_ADDRESSES], port, local_address, socket_options)
        except TimeoutError as exc:
            raise httpcore2.ConnectTimeout from exc
        except (OSError, UnicodeError) as exc:  # the name does not exist, or is malformed
            raise httpcore2.ConnectError from exc

    async def _connect(self, addresses: Sequence[str], port: int, *given: Any) -> httpcore2.AsyncNetworkStream:
        *others, last = addresses
        for address in others:
            with suppress(httpcore2.ConnectError):  # try the next address
                return await self._network.connect_tcp(address, port, None, *given)
        return await self._network.connect_tcp(last, port, None, *given)

    def _is_allowed(self, address: str) -> bool:
        bare = ip_address(address.partition("%")[0])
        return is_public(str(bare)) or any(bare in network for network in self._integration.guarded_allow)


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """The transport of a guarded integration."""

    def __init__(self, integration: Integration, lookup: Resolve = resolve) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(),
            max_connections=integration.max_connections,
            max_keepalive_connections=integration.max_connections,
            keepalive_expiry=5.0,
            network_backend=GuardedBackend(integration, lookup),
        )
