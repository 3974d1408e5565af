"""An account that a thief is after: what links can be asked for, and what owner, administrator and operator do."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import SecretStr
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.models import User, UserStatus
from app.auth.repositories import UserRepository
from app.auth.services.operator import reset_password
from tests.auth.mails import text_of
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail

API = "/api/v1"
Drain = Callable[[], Awaitable[int]]


@dataclass
class House:
    """One account, its owner or thief (whoever has the password), an administrator and a mailbox."""

    client: httpx.AsyncClient
    drain: Drain
    mails: CapturedMail
    session: AsyncSession
    user_id: int
    email: str
    required: bool
    password: str = PASSWORD
    prepared: str = ""
    admin: dict[str, str] = field(default_factory=dict)

    async def login(self) -> dict[str, str]:
        """The bearer of a new session."""
        return await bearer(self.client, self.email, self.password)

    async def send(self, method: str, path: str, headers: dict[str, str] | None = None, **body: Any) -> int:
        """The status of one request."""
        answer = await self.client.request(method, API + path, headers=headers, json=body or None)
        return answer.status_code

    async def administer(self, **body: Any) -> None:
        """What an administrator changes."""
        assert await self.send("PATCH", f"/users/{self.user_id}", self.admin, **body) == 200

    async def row(self) -> User:
        """The account as it is now."""
        return (
            await self.session.scalars(
                select(User).where(User.id == self.user_id).execution_options(populate_existing=True)
            )
        ).one()

    def links(self, address: str) -> list[str]:
        """The tokens mailed to `address`, oldest first."""
        return [text.split("#token=")[1].split()[0] for text in self.texts(address) if "#token=" in text]

    def texts(self, address: str) -> list[str]:
        """The mails to `address`, oldest first."""
        return [text_of(mail) for mail in self.mails.to(address)]


async def bearer(client: httpx.AsyncClient, name: str, password: str = PASSWORD) -> dict[str, str]:
    answer = await client.post(f"{API}/auth/login", data={"username": name, "password": password})
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def build(
    session: AsyncSession, client: httpx.AsyncClient, drain: Drain, mails: CapturedMail, *, required: bool
) -> House:
    owner = await UserFactory.create(email="owner@example.com")
    admin = await UserFactory.create(email="admin@example.com", is_superuser=True)
    house = House(client, drain, mails, session, owner.id, owner.email, required)
    house.admin = await bearer(client, admin.email)
    return house


class Reset:
    """A link that sets a new password."""

    required = True
    verified = True

    def mailbox(self, house: House) -> str:
        return house.email

    async def ask(self, house: House) -> None:
        assert await house.send("POST", "/auth/restore-password", email=house.email) == 202

    async def use(self, house: House, token: str) -> int:
        return await house.send("POST", "/auth/reset-password", token=token, new_password="the thief's own one")


class Verification:
    """A link that verifies the address."""

    required = False
    verified = False

    def mailbox(self, house: House) -> str:
        return house.email

    async def ask(self, house: House) -> None:
        assert await house.send("POST", "/auth/resend-verification", email=house.email) == 202

    async def use(self, house: House, token: str) -> int:
        return await house.send("POST", "/auth/verify-email", token=token)


class Address:
    """A link that gives the account another address."""

    required = True
    verified = True

    def mailbox(self, house: House) -> str:
        return "thief@example.com"

    async def ask(self, house: House) -> None:
        body: dict[str, Any] = {"email": "thief@example.com", "current_password": house.password}
        assert await house.send("PATCH", "/profile", await house.login(), **body) == 200

    async def use(self, house: House, token: str) -> int:
        return await house.send("POST", "/auth/verify-email", token=token)


Intent = Reset | Verification | Address


async def nothing(house: House) -> None:
    """Most remedies need no preparation."""


async def get_reset_link(house: House) -> None:
    assert await house.send("POST", "/auth/restore-password", email=house.email) == 202
    await house.drain()
    house.prepared = house.links(house.email)[-1]


async def get_address_link(house: House) -> None:
    if house.required:
        body: dict[str, Any] = {"email": "new@example.com", "current_password": house.password}
        assert await house.send("PATCH", "/profile", await house.login(), **body) == 200
        await house.drain()
        house.prepared = house.links("new@example.com")[-1]


async def change_password(house: House) -> None:
    body: dict[str, Any] = {"current_password": house.password, "new_password": "a new long password"}
    assert await house.send("POST", "/profile/password", await house.login(), **body) == 204
    house.password = "a new long password"


async def complete_reset(house: House) -> None:
    body: dict[str, Any] = {"token": house.prepared, "new_password": "a new long password"}
    assert await house.send("POST", "/auth/reset-password", **body) == 204
    house.password = "a new long password"


async def move_by_administrator(house: House) -> None:
    await house.administer(email="safe@example.com", is_verified=True)
    house.email = "safe@example.com"


async def disable_and_enable(house: House) -> None:
    await house.administer(status_id=UserStatus.DISABLED)
    await house.administer(status_id=UserStatus.ACTIVE)


async def delete_and_restore(house: House) -> None:
    assert await house.send("DELETE", f"/users/{house.user_id}", house.admin) == 204
    await UserRepository().restore(db=house.session, model_id=house.user_id)
    await house.session.commit()


async def change_rights(house: House) -> None:
    await house.administer(is_superuser=True)


async def change_verification(house: House) -> None:
    await house.administer(is_verified=not (await house.row()).is_verified)


async def log_out_everywhere(house: House) -> None:
    assert await house.send("POST", "/auth/logout-all", await house.login()) == 204


async def complete_move(house: House) -> None:
    if house.required:
        assert await house.send("POST", "/auth/verify-email", token=house.prepared) == 204
    else:
        body: dict[str, Any] = {"email": "new@example.com", "current_password": house.password}
        assert await house.send("PATCH", "/profile", await house.login(), **body) == 200
    house.email = "new@example.com"


async def reset_by_operator(house: House) -> None:
    await reset_password(house.email, SecretStr("a new long password"))
    house.password = "a new long password"


Step = Callable[[House], Awaitable[None]]
INTENTS: list[Intent] = [Reset(), Verification(), Address()]
REMEDIES: dict[Step, Step] = {
    change_password: nothing,
    complete_reset: get_reset_link,
    move_by_administrator: nothing,
    disable_and_enable: nothing,
    delete_and_restore: nothing,
    change_rights: nothing,
    change_verification: nothing,
    log_out_everywhere: nothing,
    complete_move: get_address_link,
    reset_by_operator: nothing,
}


async def set_verified(house: House, verified: bool) -> None:
    await house.session.execute(update(User).where(User.id == house.user_id).values(is_verified=verified))
    await house.session.commit()
