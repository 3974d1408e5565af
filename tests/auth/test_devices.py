"""Logins from unknown devices, and stolen refresh tokens: the owner is told by mail."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.models import AuthSession, RefreshToken, User
from app.auth.repositories import SessionRepository
from app.core.db import utcnow
from tests.auth.mails import text_of
from tests.auth.takeover import Drain
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail, freeze

API = "/api/v1"
LAPTOP, PHONE = "Laptop", "Phone"
HOME, NEAR, FAR = "192.0.2.1", "192.0.2.77", "198.51.100.1"


class Devices:
    """Clients of one account, and the mails to it."""

    def __init__(self, app: FastAPI, user: User, drain: Drain, mails: CapturedMail) -> None:
        self.app, self.user, self.drain, self.mails = app, user, drain, mails

    async def send(self, path: str, device: str = LAPTOP, address: str = HOME, **sent: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False, client=(address, 50000))
        headers = {"User-Agent": device, **sent.pop("headers", {})}
        async with httpx.AsyncClient(transport=transport, base_url=f"http://test{API}", headers=headers) as http:
            return await http.post(path, **sent)

    async def login(self, device: str = LAPTOP, address: str = HOME, **fields: str) -> dict[str, str]:
        data = {"username": self.user.email, "password": PASSWORD, **fields}
        answer = await self.send("/auth/login", device, address, data=data)
        assert answer.status_code == 200, answer.text
        tokens: dict[str, str] = answer.json()
        return tokens

    async def told(self) -> list[str]:
        """The mails since the last call."""
        await self.drain()
        texts = [text_of(mail) for mail in self.mails.to(self.user.email)]
        self.mails.clear()
        return texts


@pytest.fixture
async def devices(db: AsyncSession, app: FastAPI, drain: Drain, captured_mail: CapturedMail) -> Devices:
    return Devices(app, await UserFactory.create(email="ann@example.com", username="ann"), drain, captured_mail)


class TestNewSignIn:
    async def test_the_first_login_is_not_new_and_known_devices_are_not(self, devices: Devices) -> None:
        for address in (HOME, HOME, NEAR):
            await devices.login(LAPTOP, address)
        assert await devices.told() == []

    @pytest.mark.parametrize(("device", "address"), [(PHONE, HOME), (LAPTOP, FAR), (LAPTOP, "2001:db8::1")])
    async def test_another_device_or_network_is_told_once(self, devices: Devices, device: str, address: str) -> None:
        await devices.login()
        await devices.login(device, address)
        (text,) = await devices.told()
        assert "Hello ann" in text
        assert "your account was logged in to at 20" in text
        assert "/forgot-password" in text

        await devices.login(device, address)
        assert await devices.told() == []

    async def test_the_mail_repeats_nothing_that_the_client_chose(self, devices: Devices) -> None:
        await devices.login()
        await devices.login("www.evil.example", "::ffff:198.51.100.9%www.evil.example")
        (text,) = await devices.told()
        assert "evil" not in text

    async def test_a_device_whose_session_was_ended_by_a_remedy_is_unknown(self, devices: Devices) -> None:
        await devices.login()
        await devices.login(PHONE)
        laptop = await devices.login()
        assert len(await devices.told()) == 1
        headers = {"Authorization": f"Bearer {laptop['access_token']}"}
        body = {"current_password": PASSWORD, "new_password": "another fine passphrase"}
        assert (await devices.send("/profile/password", headers=headers, json=body)).status_code == 204
        await devices.told()

        data = {"username": "ann", "password": "another fine passphrase"}
        assert (await devices.send("/auth/login", LAPTOP, data=data)).status_code == 200
        assert await devices.told() == []
        assert (await devices.send("/auth/login", PHONE, data=data)).status_code == 200
        assert len(await devices.told()) == 1

    async def test_logging_out_leaves_a_device_known(self, devices: Devices) -> None:
        tokens = await devices.login()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert (await devices.send("/auth/logout", headers=headers)).status_code == 204
        await devices.login()
        assert await devices.told() == []

    async def test_a_device_token_makes_it_known_anywhere(self, devices: Devices) -> None:
        tokens = await devices.login()
        await devices.login(PHONE, FAR, device_token=tokens["device_token"])
        assert await devices.told() == []
        await devices.login(PHONE, "203.0.113.9", device_token=tokens["device_token"][:-1] + "x")
        assert len(await devices.told()) == 1

    async def test_a_device_is_forgotten_after_ninety_days(self, db: AsyncSession, devices: Devices) -> None:
        await devices.login()
        with freeze(timedelta(days=89)):
            await SessionRepository().delete_expired(db=db)
            await db.commit()
            assert await db.scalar(select(func.count()).select_from(RefreshToken)) == 0
            await devices.login()
            assert await devices.told() == []
        with freeze(timedelta(days=180)):
            await SessionRepository().delete_expired(db=db)
            await db.commit()
            assert await db.scalar(select(func.count()).select_from(AuthSession)) == 0
            await devices.login()
            assert len(await devices.told()) == 1

    async def test_an_address_that_nobody_has_verified_gets_no_mail(self, db: AsyncSession, devices: Devices) -> None:
        """Whoever registers a stranger's address could have it filled with mails."""
        await db.execute(update(User).values(is_verified=False))
        await db.commit()
        for device in (LAPTOP, PHONE):
            tokens = await devices.login(device)
        for _ in range(2):
            await devices.send("/auth/refresh-token", json={"refresh_token": tokens["refresh_token"]})
            await db.execute(update(RefreshToken).values(rotated_at=utcnow() - timedelta(minutes=1)))
            await db.commit()
        assert await devices.told() == []


class TestSessionStolen:
    async def test_reuse_of_a_refresh_token_is_told_once(self, devices: Devices) -> None:
        tokens = await devices.login()
        body = {"refresh_token": tokens["refresh_token"]}
        assert (await devices.send("/auth/refresh-token", json=body)).status_code == 200

        with freeze(timedelta(seconds=11)):
            for _ in range(2):
                assert (await devices.send("/auth/refresh-token", PHONE, json=body)).status_code == 401
            (text,) = await devices.told()

        assert "a session of your account was ended" in text
        assert tokens["refresh_token"] not in text
