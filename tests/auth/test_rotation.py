"""Key rings: a rotation in three rollouts, in each of which processes of two configurations serve side by side."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig, get_auth_config
from app.core.configs import AppConfig, get_settings
from app.core.db import Database
from app.main import create_app
from tests.factories.user import UserFactory
from tests.utils import PASSWORD

API = "/api/v1"
OLD, NEW = "5f2c8e1b7d3a496083bfae2d61c7905e", "9e1d7c3b5a2f48607d3c9eb1f04a2586"

PHASES: list[dict[str, str | None]] = [
    {"SECRET_KEY": OLD},
    {"SECRET_KEY": OLD, "NEXT_SECRET_KEY": NEW},
    {"SECRET_KEY": NEW, "PREVIOUS_SECRET_KEY": OLD},
    {"SECRET_KEY": NEW},
]
"""The values of each rollout, for SECRET_KEY; those for JWT_SECRET_KEY have other names."""


class Keys(NamedTuple):
    """The configuration of one process."""

    settings: AppConfig
    auth: AuthConfig

    @classmethod
    def of(cls, phase: dict[str, Any]) -> "Keys":
        names = {"SECRET_KEY": "JWT_SECRET_KEY", "NEXT_SECRET_KEY": "JWT_NEXT_SECRET_KEY"}
        names |= {"PREVIOUS_SECRET_KEY": "JWT_PREVIOUS_SECRET_KEY"}
        auth: dict[str, Any] = {names[name]: f"jwt{value}" for name, value in phase.items()}
        return cls(AppConfig(**get_settings().model_dump() | phase), AuthConfig(**auth))

    def use(self, app: FastAPI) -> None:
        """Have `app` serve with these from now on."""
        app.dependency_overrides |= {get_settings: lambda: self.settings, get_auth_config: lambda: self.auth}


@asynccontextmanager
async def process(keys: Keys) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application of its own, on the stores of the running one."""
    app = create_app(run_jobs=False)
    keys.use(app)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://test{API}") as http:
        yield http


async def login(http: httpx.AsyncClient, email: str) -> dict[str, str]:
    answer = await http.post("/auth/login", data={"username": email, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    tokens: dict[str, str] = answer.json()
    return tokens


async def refresh(http: httpx.AsyncClient, tokens: dict[str, str]) -> dict[str, str]:
    answer = await http.post("/auth/refresh-token", json={"refresh_token": tokens["refresh_token"]})
    assert answer.status_code == 200, answer.text
    found: dict[str, str] = answer.json()
    return found


async def profile(http: httpx.AsyncClient, tokens: dict[str, str]) -> int:
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    return (await http.get("/profile", headers=headers)).status_code


class TestTwoProcesses:
    @pytest.mark.parametrize("phases", list(pairwise(PHASES)), ids=["add next", "swap", "remove previous"])
    @pytest.mark.parametrize("swapped", [False, True], ids=["old to new", "new to old"])
    async def test_neither_refuses_what_the_other_made(
        self, db: AsyncSession, phases: tuple[dict[str, Any], ...], swapped: bool
    ) -> None:
        user = await UserFactory.create()
        one, other = (Keys.of(phase) for phase in (reversed(phases) if swapped else phases))
        async with process(one) as first, process(other) as second:
            tokens = await login(first, user.email)
            assert await profile(second, tokens) == 200
            # A lost answer is asked for again, of the other process: the same successor.
            successor = await refresh(first, tokens)
            repeated = await refresh(second, tokens)
            assert repeated["refresh_token"] == successor["refresh_token"]
            assert await profile(first, repeated) == await profile(second, successor) == 200
            following = await refresh(second, successor)
            assert await profile(first, following) == 200
            # A replay is still one, whichever key made the successor.
            replay = await first.post("/auth/refresh-token", json={"refresh_token": tokens["refresh_token"]})
            assert replay.status_code == 401
            assert await profile(second, following) == 401

    async def test_a_key_that_was_removed_is_refused(self, db: AsyncSession) -> None:
        user = await UserFactory.create()
        async with process(Keys.of(PHASES[0])) as first, process(Keys.of(PHASES[-1])) as last:
            assert await profile(last, await login(first, user.email)) == 401


class TestUnderLoad:
    async def test_a_rotation_fails_no_request(self, committed: Database, app: FastAPI) -> None:
        user = await UserFactory.create()
        phases = [Keys.of(phase) for phase in PHASES]
        rounds = [0] * 4
        done, progress = asyncio.Event(), asyncio.Event()

        async def work(http: httpx.AsyncClient, number: int) -> None:
            tokens = await login(http, user.email)
            while not done.is_set():
                assert await profile(http, tokens) == 200
                rounds[number] += 1
                progress.set()
                one, other = await asyncio.gather(refresh(http, tokens), refresh(http, tokens))
                assert one["refresh_token"] == other["refresh_token"]
                tokens = one

        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        before = dict(app.dependency_overrides)
        try:
            phases[0].use(app)
            async with (
                httpx.AsyncClient(transport=transport, base_url=f"http://test{API}") as http,
                asyncio.TaskGroup() as group,
            ):
                for number in range(len(rounds)):
                    group.create_task(work(http, number))
                for keys in phases:
                    keys.use(app)
                    enough = [count + 3 for count in rounds]  # by then each holds tokens of these keys
                    async with asyncio.timeout(60):
                        while any(count < least for count, least in zip(rounds, enough, strict=True)):
                            progress.clear()
                            await progress.wait()
                done.set()
        finally:
            app.dependency_overrides.clear()
            app.dependency_overrides.update(before)
