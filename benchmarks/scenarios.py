"""What is asked of both servers."""

import asyncio
import itertools
import json
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from benchmarks.load import Make, answer, request
from benchmarks.servers import ACCOUNTS, PASSWORD, Server

API = "/api/v1"


@dataclass(frozen=True)
class Scenario:
    """One row of the table: a request for each server, by its name."""

    name: str
    requests: dict[str, Make]


async def scenarios(service: Server, baseline: Server) -> list[Scenario]:
    """All of them; both servers take the tokens of the service."""
    tokens = json.loads(await _once(service, request("POST", f"{API}/auth/login", body=_form("admin"))))
    token = tokens["access_token"]
    first = json.loads(await _once(service, request("GET", f"{API}/users?cursor=", token=token)))
    cursor = quote(first["meta"]["pagination"]["next_cursor"])
    last = first["data"][-1]["id"]

    def get(target: str, *, with_token: bool = True) -> Make:
        sent = request("GET", target, token=token if with_token else None)
        return lambda: sent

    def both(name: str, service_makes: Make, baseline_makes: Make) -> Scenario:
        return Scenario(name, {service.name: service_makes, baseline.name: baseline_makes})

    return [
        both("profile", get(f"{API}/profile"), get("/profile")),
        both("list of 20 with total", get(f"{API}/users?page=3"), get("/users?page=3")),
        both("page of 20 by cursor", get(f"{API}/users?cursor={cursor}"), get(f"/users/after?after={last}")),
        both("login", _login(f"{API}/auth/login"), _login("/login")),
        both("health", get("/health/live", with_token=False), get("/health", with_token=False)),
    ]


async def profile(on: Server, off: Server, name: str) -> list[Scenario]:
    """The same request to both."""
    token = json.loads(await _once(off, _login(f"{API}/auth/login")()))["access_token"]
    sent = request("GET", f"{API}/profile", token=token)
    return [Scenario(name, {on.name: lambda: sent, off.name: lambda: sent})]


def _login(target: str) -> Make:
    """Each from a client and under a name of its own, or limits would refuse them: three at once for one name."""
    numbers = itertools.count()

    def make() -> bytes:
        number = next(numbers)
        address = f"X-Forwarded-For: 10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        return request("POST", target, body=_form(f"user{1 + number % ACCOUNTS}"), headers=(address,))

    return make


def _form(name: str) -> bytes:
    return urlencode({"username": name, "password": PASSWORD}).encode()


async def _once(server: Server, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        return await answer(reader, writer, sent)
    finally:
        writer.close()
