"""Notices by mail and ended sessions when an account changes hands, or seems to."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig
from app.auth.exceptions import UserNotFound
from app.auth.models import AuthSession, UserStatus
from app.auth.repositories import SessionRepository
from app.auth.services.accounts import reset_password
from app.core.db.jobs import Job
from app.core.services.mail.service import SendMail
from tests.auth.takeover import (
    API,
    REMEDIES,
    Address,
    Scenario,
    Step,
    change_password,
    change_rights,
    complete_move,
    complete_reset,
    move_by_administrator,
    reset_by_operator,
    set_verified,
)
from tests.utils import PASSWORD

Configure = Callable[..., AuthConfig]


class TestCompletedMove:
    @pytest.mark.parametrize("required", [True, False])
    async def test_the_session_that_asked_stays_and_others_end(
        self, db: AsyncSession, scenario: Scenario, configure: Configure, required: bool
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=required)
        other, asking = await scenario.login(), await scenario.login()
        body: dict[str, Any] = {"email": "new@example.com", "current_password": PASSWORD}
        assert await scenario.send("PATCH", "/profile", asking, **body) == 200
        await scenario.drain()
        if required:
            assert await scenario.send("GET", "/profile", other) == 200, "asked for is not done"
            assert await Address().use(scenario, scenario.links("new@example.com")[0]) == 204

        assert await scenario.send("GET", "/profile", asking) == 200
        assert await scenario.send("GET", "/profile", other) == 401
        await scenario.drain()
        assert "is now new@example.com" in scenario.texts("owner@example.com")[-1]

    async def test_all_end_where_the_session_that_asked_has_logged_out(
        self, db: AsyncSession, scenario: Scenario
    ) -> None:
        other = await scenario.login()
        await Address().ask(scenario)
        await scenario.drain()
        last = (await db.scalars(select(AuthSession).order_by(AuthSession.id.desc()))).first()
        assert last is not None
        await SessionRepository().revoke(db=db, user_id=scenario.user_id, session_id=last.id, reason="logout")
        await db.commit()

        assert await Address().use(scenario, scenario.links("thief@example.com")[0]) == 204
        assert await scenario.send("GET", "/profile", other) == 401


class TestNotices:
    @pytest.mark.parametrize(
        ("remedy", "told", "ends"),
        [
            (change_password, "the password of your account was changed", True),
            (complete_reset, "the password of your account was changed", True),
            (reset_by_operator, "the password of your account was changed", True),
            (move_by_administrator, "the address of your account is now safe@example.com", True),
            (complete_move, "the address of your account is now new@example.com", True),
            (change_rights, "your account was made an administrator", False),
        ],
        ids=lambda value: getattr(value, "__name__", None),
    )
    async def test_the_address_that_knew_is_told_and_sessions_end(
        self, db: AsyncSession, scenario: Scenario, remedy: Step, told: str, ends: bool
    ) -> None:
        before = await scenario.login()
        await REMEDIES[remedy](scenario)
        scenario.mails.clear()

        await remedy(scenario)
        mails = [job.payload for job in await db.scalars(select(Job).where(Job.task == SendMail.__task_name__))]
        assert "a new long password" not in str(mails)
        await scenario.drain()

        (notice,) = scenario.texts("owner@example.com")
        assert told in notice
        assert "#token=" not in notice
        assert await scenario.send("GET", "/profile", before) == (401 if ends else 200)

    async def test_a_new_superuser_is_told(self, db: AsyncSession, scenario: Scenario) -> None:
        body: dict[str, Any] = {"email": "boss@example.com", "username": "boss", "is_superuser": True}
        assert await scenario.send("POST", "/users", scenario.admin, **body, password=PASSWORD) == 201
        await scenario.drain()

        assert any("was made an administrator" in text for text in scenario.texts("boss@example.com"))

    async def test_a_name_nobody_stands_for_is_in_no_mail(self, db: AsyncSession, scenario: Scenario) -> None:
        """Mail programs make a link of it, and anybody can register anybody's address."""
        name, victim = "www.evil.example23698", "victim@example.com"
        body: dict[str, Any] = {"email": victim, "username": name, "password": PASSWORD}
        for _ in range(2):  # the second time the address is taken
            assert await scenario.send("POST", "/auth/register", **body) == 202
        assert await scenario.send("POST", "/auth/register", **{**body, "email": "next@example.com"}) == 202
        for path in ("restore-password", "resend-verification"):
            assert await scenario.send("POST", f"/auth/{path}", email=victim) == 202
        await scenario.administer(username="www.evil.example")
        body = {"email": "friend@example.com", "current_password": PASSWORD}
        assert await scenario.send("PATCH", "/profile", await scenario.login(), **body) == 200
        await scenario.drain()

        mails = [scenario.texts(address) for address in (victim, "next@example.com", "friend@example.com")]
        assert [len(texts) for texts in mails] == [4, 1, 1]
        assert "evil" not in str(mails)


class TestUnverified:
    async def test_an_account_made_unverified_is_logged_out(self, db: AsyncSession, scenario: Scenario) -> None:
        headers = await scenario.login()
        await scenario.administer(is_verified=False)
        assert await scenario.send("GET", "/profile", headers) == 401

    async def test_it_refreshes_no_session(self, db: AsyncSession, scenario: Scenario) -> None:
        data = {"username": scenario.email, "password": PASSWORD}
        tokens = (await scenario.client.post(f"{API}/auth/login", data=data)).json()
        await set_verified(scenario, verified=False)
        assert await scenario.send("POST", "/auth/refresh-token", refresh_token=tokens["refresh_token"]) == 401


class TestOperator:
    async def test_an_unknown_login(self, db: AsyncSession, scenario: Scenario) -> None:
        for login in ("nobody", "nobody@example.com", "no@", ""):
            with pytest.raises(UserNotFound):
                await reset_password(login, SecretStr("a new long password"))

    async def test_a_disabled_account_stays_disabled(self, db: AsyncSession, scenario: Scenario) -> None:
        await scenario.administer(status_id=UserStatus.DISABLED)
        user = await reset_password((await scenario.row()).username, SecretStr("a new long password"))
        assert user.status_id == UserStatus.DISABLED
