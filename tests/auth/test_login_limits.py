"""Guessing passwords is limited for each real client, whatever it claims to be."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI

from app.auth import CurrentUser, current_user
from app.core.api import ConfigurableRateLimiter
from app.core.db.session import Database
from tests.core.api.asgi import Exchange
from tests.core.api.conftest import make_app
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, login_user

PROXY = "10.0.0.1"
URL = "/api/v1/auth/login"


def wrong() -> dict[str, str]:
    """A login under a name that no other try has: here clients are counted, not accounts."""
    return {"username": str(uuid4()), "password": PASSWORD}


def connect(application: FastAPI, address: str) -> httpx.AsyncClient:
    """A client whose connections come from `address`."""
    transport = httpx.ASGITransport(application, raise_app_exceptions=False, client=(address, 50000))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture
async def direct(committed: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that trusts no proxy."""
    async with connect(make_app(RATE_LIMITER_ENABLED=True), PROXY) as http:
        yield http


@pytest.fixture
async def behind_proxies(committed: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose connections are the trusted proxy's."""
    application = make_app(RATE_LIMITER_ENABLED=True, TRUSTED_PROXIES=[PROXY, "10.1.0.0/16"])
    async with connect(application, PROXY) as http:
        yield http


async def guess(http: httpx.AsyncClient, forwarded: str) -> int:
    return (await http.post(URL, data=wrong(), headers={"X-Forwarded-For": forwarded})).status_code


class TestClaims:
    async def test_sixty_logins_with_other_claims_are_five_password_checks(self, direct: httpx.AsyncClient) -> None:
        async def attempt(number: int) -> int:
            address = f"203.0.113.{number}"
            claims = {
                "X-Forwarded-For": f"{address}, 198.51.100.{number}",
                "X-Real-IP": address,
                "Forwarded": f"for={address}",
                "True-Client-IP": address,
                "CF-Connecting-IP": address,
            }
            return (await direct.post(URL, data=wrong(), headers=claims)).status_code

        assert Counter(await asyncio.gather(*map(attempt, range(60)))) == {401: 5, 429: 55}


class TestBehindATrustedProxy:
    async def test_each_real_client_has_its_own_allowance(self, behind_proxies: httpx.AsyncClient) -> None:
        for real in ("198.51.100.1", "198.51.100.2", "2001:db8:1:1::1"):
            codes = await asyncio.gather(*(guess(behind_proxies, real) for _ in range(8)))
            assert Counter(codes) == {401: 5, 429: 3}

    async def test_what_a_client_wrote_itself_does_not_count(self, behind_proxies: httpx.AsyncClient) -> None:
        codes = [await guess(behind_proxies, f"203.0.113.{n}, 198.51.100.3") for n in range(8)]
        assert Counter(codes) == {401: 5, 429: 3}

    async def test_proxies_before_the_proxy_are_passed_over(self, behind_proxies: httpx.AsyncClient) -> None:
        codes = [await guess(behind_proxies, f"203.0.113.{n}, 198.51.100.4, 10.1.0.{n}") for n in range(8)]
        assert Counter(codes) == {401: 5, 429: 3}

    async def test_an_ipv6_customer_is_one_client(self, behind_proxies: httpx.AsyncClient) -> None:
        codes = [await guess(behind_proxies, f"2001:db8:1:2::{n:x}") for n in range(8)]
        assert Counter(codes) == {401: 5, 429: 3}

    async def test_other_headers_of_the_proxy_do_not_count(self, behind_proxies: httpx.AsyncClient) -> None:
        headers = {"X-Forwarded-For": "198.51.100.5"}
        codes = [
            (await behind_proxies.post(URL, data=wrong(), headers={**headers, name: f"203.0.113.{n}"})).status_code
            for n, name in enumerate(["X-Real-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP"] * 2)
        ]
        assert Counter(codes) == {401: 5, 429: 3}


class TestVerifiedCallers:
    @pytest.fixture
    def application(self, committed: Database) -> FastAPI:
        router = APIRouter(dependencies=[Depends(current_user), Depends(ConfigurableRateLimiter(times=2, seconds=60))])

        @router.get("/own")
        async def own(user: CurrentUser) -> int:
            return user.id

        own.__qualname__ = f"own-{id(router)}"
        return make_app(router, RATE_LIMITER_ENABLED=True)

    async def statuses(self, application: FastAPI, address: str, token: str, times: int) -> list[int]:
        async with connect(application, address) as http:
            headers = {"Authorization": f"Bearer {token}"}
            return [(await http.get("/own", headers=headers)).status_code for _ in range(times)]

    async def test_users_behind_one_address_count_apart_and_a_user_counts_once_everywhere(
        self, application: FastAPI, client: httpx.AsyncClient
    ) -> None:
        tokens = [(await login_user(client, await UserFactory.create()))["access_token"] for _ in range(2)]
        assert await self.statuses(application, "198.51.100.20", tokens[0], 3) == [200, 200, 429]
        assert await self.statuses(application, "198.51.100.20", tokens[1], 2) == [200, 200]
        assert await self.statuses(application, "198.51.100.21", tokens[0], 1) == [429]

    async def test_a_token_nobody_verified_is_no_identity(self, application: FastAPI) -> None:
        forged = "eyJhbGciOiJub25lIn0.eyJzdWIiOiI3In0."
        assert await self.statuses(application, "198.51.100.22", forged, 3) == [401] * 3


class TestGuessesOfACurrentPassword:
    """A stolen access token is no way to guess the password, and harms nobody else at its address."""

    @pytest.fixture
    def application(self, committed: Database) -> FastAPI:
        return make_app(RATE_LIMITER_ENABLED=True)

    async def guess(self, application: FastAPI, token: str, number: int, address: str) -> int:
        changes = {
            "PATCH": {"email": "new@example.com"},
            "POST": {"new_password": "correct horse battery"},
            "DELETE": {},
        }
        method = list(changes)[number % 3]
        path = "/api/v1/profile/password" if method == "POST" else "/api/v1/profile"
        body = {**changes[method], "current_password": f"wrong-{number}"}
        async with connect(application, address) as http:
            headers = {"Authorization": f"Bearer {token}"}
            return (await http.request(method, path, json=body, headers=headers)).status_code

    async def test_they_count_for_the_user_on_every_route_and_from_every_address(
        self, application: FastAPI, client: httpx.AsyncClient
    ) -> None:
        users = [
            await UserFactory.create(id=uuid4().int % 2**31 + number) for number in (1, 2)
        ]  # no other test's count
        stolen, colleague = [(await login_user(client, user))["access_token"] for user in users]
        codes = [await self.guess(application, stolen, number, f"198.51.100.{number}") for number in range(16)]
        assert 429 not in codes[:10]
        assert codes[10:] == [429] * 6
        assert await self.guess(application, stolen, 0, "203.0.113.1") == 429
        assert await self.guess(application, colleague, 0, "203.0.113.1") != 429


class TestBeforeTheBody:
    @pytest.mark.parametrize(("path", "times"), [("login", 5), ("refresh-token", 30)])
    async def test_a_refused_request_costs_no_reading(self, committed: Database, path: str, times: int) -> None:
        application = make_app(RATE_LIMITER_ENABLED=True)
        url, kind = f"/api/v1/auth/{path}", {"content-type": "application/json"}
        for expected in [422] * times + [429]:
            exchange = Exchange(url, method="POST", headers=kind)
            exchange.scope["client"] = ("198.51.100.30", 50000)
            await exchange.run(application)
            assert exchange.status == expected
        assert exchange.unsent, "the body was read"
        names = [name for message in exchange.received for name, _ in message.get("headers", ())]
        assert {b"retry-after", b"ratelimit"} <= set(names)
