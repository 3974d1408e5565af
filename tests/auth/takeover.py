"""Account takeover: the links a thief can ask for, and the remedies of owner, administrator and operator."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import SecretStr
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.models import User, UserStatus
from app.auth.repositories import UserRepository
from app.auth.services.accounts import reset_password
from tests.auth.mails import text_of
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail

API = "/api/v1"
Drain = Callable[[], Awaitable[int]]


@dataclass
class Scenario:
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
        """Change the account as an administrator."""
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
) -> Scenario:
    owner = await UserFactory.create(email="owner@example.com")
    admin = await UserFactory.create(email="admin@example.com", is_superuser=True)
    scenario = Scenario(client, drain, mails, session, owner.id, owner.email, required)
    scenario.admin = await bearer(client, admin.email)
    return scenario


class Reset:
    """A link that sets a new password."""

    required = True
    verified = True

    def mailbox(self, scenario: Scenario) -> str:
        return scenario.email

    async def ask(self, scenario: Scenario) -> None:
        assert await scenario.send("POST", "/auth/restore-password", email=scenario.email) == 202

    async def use(self, scenario: Scenario, token: str) -> int:
        return await scenario.send("POST", "/auth/reset-password", token=token, new_password="the thief's own one")


class Verification:
    """A link that verifies the address."""

    required = False
    verified = False

    def mailbox(self, scenario: Scenario) -> str:
        return scenario.email

    async def ask(self, scenario: Scenario) -> None:
        assert await scenario.send("POST", "/auth/resend-verification", email=scenario.email) == 202

    async def use(self, scenario: Scenario, token: str) -> int:
        return await scenario.send("POST", "/auth/verify-email", token=token)


class Address:
    """A link that gives the account another address."""

    required = True
    verified = True

    def mailbox(self, scenario: Scenario) -> str:
        return "thief@example.com"

    async def ask(self, scenario: Scenario) -> None:
        body: dict[str, Any] = {"email": "thief@example.com", "current_password": scenario.password}
        assert await scenario.send("PATCH", "/profile", await scenario.login(), **body) == 200

    async def use(self, scenario: Scenario, token: str) -> int:
        return await scenario.send("POST", "/auth/verify-email", token=token)


Intent = Reset | Verification | Address


async def nothing(scenario: Scenario) -> None:
    """Most remedies need no preparation."""


async def get_reset_link(scenario: Scenario) -> None:
    assert await scenario.send("POST", "/auth/restore-password", email=scenario.email) == 202
    await scenario.drain()
    scenario.prepared = scenario.links(scenario.email)[-1]


async def get_address_link(scenario: Scenario) -> None:
    if scenario.required:
        body: dict[str, Any] = {"email": "new@example.com", "current_password": scenario.password}
        assert await scenario.send("PATCH", "/profile", await scenario.login(), **body) == 200
        await scenario.drain()
        scenario.prepared = scenario.links("new@example.com")[-1]


async def change_password(scenario: Scenario) -> None:
    body: dict[str, Any] = {"current_password": scenario.password, "new_password": "a new long password"}
    assert await scenario.send("POST", "/profile/password", await scenario.login(), **body) == 204
    scenario.password = "a new long password"


async def complete_reset(scenario: Scenario) -> None:
    body: dict[str, Any] = {"token": scenario.prepared, "new_password": "a new long password"}
    assert await scenario.send("POST", "/auth/reset-password", **body) == 204
    scenario.password = "a new long password"


async def move_by_administrator(scenario: Scenario) -> None:
    await scenario.administer(email="safe@example.com", is_verified=True)
    scenario.email = "safe@example.com"


async def disable_and_enable(scenario: Scenario) -> None:
    await scenario.administer(status_id=UserStatus.DISABLED)
    await scenario.administer(status_id=UserStatus.ACTIVE)


async def delete_and_restore(scenario: Scenario) -> None:
    assert await scenario.send("DELETE", f"/users/{scenario.user_id}", scenario.admin) == 204
    await UserRepository().restore(db=scenario.session, model_id=scenario.user_id)
    await scenario.session.commit()


async def change_rights(scenario: Scenario) -> None:
    await scenario.administer(is_superuser=True)


async def change_verification(scenario: Scenario) -> None:
    await scenario.administer(is_verified=not (await scenario.row()).is_verified)


async def log_out_everywhere(scenario: Scenario) -> None:
    assert await scenario.send("POST", "/auth/logout-all", await scenario.login()) == 204


async def complete_move(scenario: Scenario) -> None:
    if scenario.required:
        assert await scenario.send("POST", "/auth/verify-email", token=scenario.prepared) == 204
    else:
        body: dict[str, Any] = {"email": "new@example.com", "current_password": scenario.password}
        assert await scenario.send("PATCH", "/profile", await scenario.login(), **body) == 200
    scenario.email = "new@example.com"


async def reset_by_operator(scenario: Scenario) -> None:
    await reset_password(scenario.email, SecretStr("a new long password"))
    scenario.password = "a new long password"


Step = Callable[[Scenario], Awaitable[None]]
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


async def set_verified(scenario: Scenario, verified: bool) -> None:
    await scenario.session.execute(update(User).where(User.id == scenario.user_id).values(is_verified=verified))
    await scenario.session.commit()
