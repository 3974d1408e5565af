"""The first administrator."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.bootstrap import bootstrap
from app.auth.config import get_auth_config
from app.auth.models import User
from app.auth.services.accounts import NoFirstUser, ensure_first_user
from app.core.configs import get_settings
from app.core.db import Database
from app.core.db.jobs import Job
from tests.factories.user import UserFactory


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The environment of a process that reads its settings now."""
    get_auth_config.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    get_auth_config.cache_clear()
    get_settings.cache_clear()


async def log_in(client: httpx.AsyncClient, password: str | None) -> httpx.Response:
    return await client.post("/api/v1/auth/login", data={"username": "admin@example.com", "password": password or ""})


class TestFirstUser:
    async def test_a_password_is_generated_and_works(self, committed: Database, client: httpx.AsyncClient) -> None:
        admin = await ensure_first_user()

        assert admin is not None
        assert admin.password is not None
        assert len(admin.password) >= 16
        answer = await log_in(client, admin.password)
        assert answer.status_code == 200
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        data = (await client.get("/api/v1/users/1", headers=headers)).json()["data"]
        assert (data["id"], data["is_verified"]) == (1, True)

    async def test_a_second_start_makes_none(self, db: AsyncSession) -> None:
        await ensure_first_user()

        assert await ensure_first_user() is None
        assert await bootstrap() == []
        assert await db.scalar(select(func.count()).select_from(User)) == 1

    async def test_it_is_no_registration(self, db: AsyncSession) -> None:
        await ensure_first_user()

        assert (await db.scalars(select(Job))).all() == []

    async def test_of_several_starts_at_once_one_makes_it(self, committed: Database) -> None:
        made = await asyncio.gather(*(ensure_first_user() for _ in range(5)))

        assert len([admin for admin in made if admin]) == 1
        async with committed.session_scope(read_only=True) as db:
            assert list(await db.scalars(select(User.id))) == [1]

    async def test_the_settings_choose_the_account(
        self, db: AsyncSession, client: httpx.AsyncClient, environment: pytest.MonkeyPatch
    ) -> None:
        environment.setenv("FIRST_USER_PASSWORD", "chosen by the settings")

        lines = await bootstrap()

        assert lines == ["First admin: admin@example.com", "Password:    the one in FIRST_USER_PASSWORD"]
        assert (await log_in(client, "chosen by the settings")).status_code == 200

    async def test_a_generated_password_is_shown(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        address, password = await bootstrap()

        assert address == "First admin: admin@example.com"
        assert (await log_in(client, password.split()[1])).status_code == 200

    @pytest.mark.parametrize(
        ("stage", "password", "confined"),
        [("testing", "changethis", False), ("testing", "short", False), ("production", "x9!Short", True)],
    )
    async def test_a_weak_password_of_older_settings_is_told_of_once(
        self,
        db: AsyncSession,
        client: httpx.AsyncClient,
        environment: pytest.MonkeyPatch,
        stage: str,
        password: str,
        confined: bool,
    ) -> None:
        get_settings.cache_clear()
        environment.setenv("ENVIRONMENT", stage)
        environment.setenv("JWT_SECRET_KEY", "5f2c8e1b7d3a496083bfae2d61c7905e")
        environment.setenv("FIRST_USER_PASSWORD", password)
        environment.setenv("RATE_LIMITER_ENABLED", "false")  # other tests log in from this address, too

        *_, told = await bootstrap()

        assert told.startswith("FIRST_USER_PASSWORD should be changed. ")
        assert password not in told
        assert await bootstrap() == []
        assert await db.scalar(select(User.password_change_required)) is confined
        assert (await log_in(client, password)).status_code == 200

    @pytest.mark.parametrize("password", ["changethis", "admin@example.com", "Administrator1", "x" * 5000])
    async def test_outside_development_one_that_is_easy_to_guess_makes_none(
        self, db: AsyncSession, environment: pytest.MonkeyPatch, password: str
    ) -> None:
        get_settings.cache_clear()
        environment.setenv("ENVIRONMENT", "production")
        environment.setenv("JWT_SECRET_KEY", "5f2c8e1b7d3a496083bfae2d61c7905e")
        environment.setenv("FIRST_USER_PASSWORD", password)

        (told,) = await bootstrap()

        assert told.startswith("There is no administrator yet: change FIRST_USER_PASSWORD.")
        assert password not in told
        assert await db.scalar(select(func.count()).select_from(User)) == 0

    @pytest.mark.parametrize(
        ("values", "setting"),
        [
            ({"email": "ADMIN@example.com"}, "FIRST_USER_EMAIL"),
            ({"username": "Admin", "email": "ann@example.com"}, "FIRST_USER_USERNAME"),
        ],
    )
    async def test_somebody_elses_account_is_not_taken_over(
        self, db: AsyncSession, values: dict[str, str], setting: str
    ) -> None:
        user = await UserFactory.create(**values)

        lines = await bootstrap()

        assert lines == [f"There is no administrator yet, and {setting} belongs to another account."]
        assert not await db.scalar(select(User.is_superuser).where(User.id == user.id))

    async def test_outside_development_no_password_is_generated(
        self, db: AsyncSession, environment: pytest.MonkeyPatch
    ) -> None:
        get_settings.cache_clear()
        environment.setenv("ENVIRONMENT", "production")
        environment.setenv("JWT_SECRET_KEY", "5f2c8e1b7d3a496083bfae2d61c7905e")

        with pytest.raises(NoFirstUser, match="FIRST_USER_PASSWORD"):
            await ensure_first_user()
