"""Changing one's own address, where it must be verified and where not."""

from collections.abc import Awaitable, Callable

import httpx
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig
from tests.auth.mails import text_of
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail, login_user

URL = "/api/v1/profile"
VERIFY = "/api/v1/auth/verify-email"
Drain = Callable[[], Awaitable[int]]
Configure = Callable[..., AuthConfig]


class TestEmail:
    async def test_it_changes_at_once_and_has_to_be_verified_again(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        user = await UserFactory.create(email="old@example.com")
        await login_user(client, user)

        answer = await client.patch(URL, json={"email": "New@example.com", "current_password": PASSWORD})

        assert answer.status_code == 200
        data = answer.json()["data"]
        assert (data["email"], data["is_verified"]) == ("New@example.com", False)
        await drain()
        assert "New@example.com" in text_of(captured_mail.to("old@example.com")[0])
        token = captured_mail.token_for("New@example.com")
        assert (await client.post(VERIFY, json={"token": token})).status_code == 204
        assert (await client.get(URL)).json()["data"]["is_verified"]

    async def test_a_taken_address_is_a_conflict(
        self, db: AsyncSession, client: httpx.AsyncClient, drain: Drain, captured_mail: CapturedMail
    ) -> None:
        await UserFactory.create(email="ann@example.com")
        await login_user(client, await UserFactory.create())

        answer = await client.patch(URL, json={"email": "ANN@example.com", "current_password": PASSWORD})

        assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")
        await drain()
        assert captured_mail.messages() == [], "what did not happen is not told"

    async def test_a_wrong_password_is_named(self, db: AsyncSession, client: httpx.AsyncClient) -> None:
        await login_user(client, await UserFactory.create())

        answer = await client.patch(URL, json={"email": "new@example.com", "current_password": "wrong password"})

        assert answer.json()["code"] == "wrong_password"
        assert answer.json()["errors"][0]["loc"] == ["body", "current_password"]


class TestEmailWhereVerificationIsRequired:
    async def test_it_changes_once_verified(
        self,
        db: AsyncSession,
        client: httpx.AsyncClient,
        configure: Configure,
        drain: Drain,
        captured_mail: CapturedMail,
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True)
        await login_user(client, await UserFactory.create(email="old@example.com"))

        answer = await client.patch(URL, json={"email": "new@example.com", "current_password": PASSWORD})
        assert answer.json()["data"]["email"] == "old@example.com"
        await drain()

        assert len(captured_mail.to("old@example.com")) == 1
        token = captured_mail.token_for("new@example.com")
        assert (await client.post(VERIFY, json={"token": token})).status_code == 204
        data = (await client.get(URL)).json()["data"]
        assert (data["email"], data["is_verified"]) == ("new@example.com", True)

    async def test_a_taken_address_gets_the_same_answer_and_its_owner_a_mail(
        self,
        db: AsyncSession,
        client: httpx.AsyncClient,
        configure: Configure,
        drain: Drain,
        captured_mail: CapturedMail,
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True)
        await UserFactory.create(email="ann@example.com")
        await login_user(client, await UserFactory.create())

        free = await client.patch(URL, json={"email": "new@example.com", "current_password": PASSWORD})
        taken = await client.patch(URL, json={"email": "ANN@example.com", "current_password": PASSWORD})

        assert (free.status_code, free.json()) == (taken.status_code, taken.json())
        await drain()
        assert "already has an account" in text_of(captured_mail.to("ann@example.com")[0])

    async def test_an_address_taken_meanwhile_is_a_conflict(
        self,
        db: AsyncSession,
        client: httpx.AsyncClient,
        configure: Configure,
        drain: Drain,
        captured_mail: CapturedMail,
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=True)
        await login_user(client, await UserFactory.create())
        await client.patch(URL, json={"email": "new@example.com", "current_password": PASSWORD})
        await drain()
        await UserFactory.create(email="NEW@example.com")

        answer = await client.post(VERIFY, json={"token": captured_mail.token_for("new@example.com")})

        assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")

    async def test_an_unverified_account_may_look_and_not_touch(
        self, db: AsyncSession, client: httpx.AsyncClient, configure: Configure
    ) -> None:
        await login_user(client, await UserFactory.create(is_verified=False))
        configure(USER_VERIFICATION_REQUIRED=True)

        assert (await client.get(URL)).status_code == 200
        for answer in (
            await client.patch(URL, json={"username": "other"}),
            await client.post(
                f"{URL}/password", json={"current_password": PASSWORD, "new_password": "another good one"}
            ),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "account_not_active")
