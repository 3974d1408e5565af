"""Authority is checked when a thing takes effect: what was asked for before a remedy is void after it.

Intents are links: asked for and still queued (the worker stopped, the mail server away), or mailed already. Remedies
are what an owner, an administrator or an operator does against a thief.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.config import AuthConfig
from app.auth.emails.templates import VerifyEmail
from app.auth.exceptions import UserNotFound
from app.auth.models import AuthSession, EndReason, User, UserStatus
from app.auth.repositories.sessions import SessionRepository
from app.auth.repositories.users import UserRepository
from app.auth.services.operator import reset_password
from app.auth.tasks import SendEmailChange, SendPasswordReset
from app.core.db import Database, utcnow
from app.core.db.jobs import Job
from app.core.runtime import runtime
from app.core.services.mail import BaseTemplate, EmailData, MailServiceInterface
from app.core.services.mail.base import SendMail
from tests.auth.mails import text_of
from tests.factories.user import UserFactory
from tests.utils import PASSWORD, CapturedMail

API = "/api/v1"
Drain = Callable[[], Awaitable[int]]
Configure = Callable[..., AuthConfig]


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
    change_rights: nothing,
    change_verification: nothing,
    log_out_everywhere: nothing,
    complete_move: get_address_link,
    reset_by_operator: nothing,
}


@pytest.mark.parametrize("remedy", REMEDIES, ids=lambda step: step.__name__)
@pytest.mark.parametrize("intent", INTENTS, ids=lambda intent: type(intent).__name__)
async def test_a_remedy_voids_what_was_asked_for_before_it(
    db: AsyncSession,
    client: httpx.AsyncClient,
    drain: Drain,
    captured_mail: CapturedMail,
    configure: Configure,
    intent: Intent,
    remedy: Step,
) -> None:
    configure(USER_VERIFICATION_REQUIRED=intent.required)
    house = await build(db, client, drain, captured_mail, required=intent.required)
    await set_verified(house, intent.verified)
    mailbox = intent.mailbox(house)

    await intent.ask(house)
    await drain()
    assert len(house.links(mailbox)) == 1, "this one is mailed"
    await REMEDIES[remedy](house)
    mailed = house.links(mailbox)
    await intent.ask(house)  # and this one queued: nobody runs jobs now
    await remedy(house)
    await drain()

    assert house.links(mailbox) == mailed, "a job makes no link under an older stamp"
    before = (await house.row()).to_dict()
    assert [await intent.use(house, token) for token in mailed] == [422] * len(mailed)
    assert (await house.row()).to_dict() == before
    assert before["email"] == house.email
    await house.login() if before["is_verified"] or not intent.required else None

    await set_verified(house, intent.verified)
    await intent.ask(house)
    await drain()
    assert await intent.use(house, house.links(intent.mailbox(house))[-1]) == 204, "what is asked for since counts"


async def set_verified(house: House, verified: bool) -> None:
    await house.session.execute(update(User).where(User.id == house.user_id).values(is_verified=verified))
    await house.session.commit()


@pytest.fixture
async def house(
    request: pytest.FixtureRequest,
    client: httpx.AsyncClient,
    drain: Drain,
    captured_mail: CapturedMail,
    configure: Configure,
) -> AsyncIterator[House]:
    """Where addresses must be verified; the test also asks for `db`, or for `committed` and gets rows of its own."""
    configure(USER_VERIFICATION_REQUIRED=True)
    stores = request.getfixturevalue("db" if "db" in request.fixturenames else "committed")
    async with stores.session() if isinstance(stores, Database) else nullcontext(stores) as session:
        yield await build(session, client, drain, captured_mail, required=True)


class Away(MailServiceInterface):
    """A mail server that refuses some recipients for now."""

    def __init__(self, mail: MailServiceInterface) -> None:
        self.mail = mail
        self.refuses: set[str] = set()
        self.refused: list[BaseTemplate] = []

    async def send(self, template: BaseTemplate, email_data: EmailData) -> None:
        if self.refuses & set(email_data.recipients):
            self.refused.append(template)
            raise ConnectionError("451 try again later")
        await self.mail.send(template, email_data)

    async def queue(self, template: BaseTemplate, email_data: EmailData) -> None:
        await self.mail.queue(template, email_data)


@pytest.fixture
def server(app: FastAPI) -> Iterator[Away]:
    """The mail server of this test."""
    mail = runtime().mail
    runtime().mail = away = Away(mail)
    yield away
    runtime().mail = mail


async def make_due(database: Database) -> None:
    """What waits for its next attempt is due."""
    async with database.session_scope() as session:
        await session.execute(update(Job).where(Job.finished_at.is_(None)).values(available_at=utcnow()))


class TestMailServerAway:
    async def test_a_link_that_waited_until_after_a_reset_is_never_made(
        self, committed: Database, house: House, server: Away
    ) -> None:
        """The thief's own server says 451 until the owner has done what the notice says."""
        server.refuses = {"thief@example.com"}
        await Address().ask(house)
        await house.drain()
        (notice,) = house.texts(house.email)
        assert "asked to change the address of your account to thief@example.com" in notice
        (waiting,) = server.refused
        assert isinstance(waiting, VerifyEmail)

        await get_reset_link(house)
        await complete_reset(house)
        server.refuses = set()
        await make_due(committed)
        await house.drain()

        assert house.texts("thief@example.com") == []
        assert await Address().use(house, waiting.url.split("=")[1]) == 422
        await house.login()

    async def test_an_older_link_neither_follows_a_newer_one_nor_voids_it(
        self, committed: Database, house: House, server: Away
    ) -> None:
        """The address with a typing error is tried for a day; the right one was asked for since."""
        server.refuses = {"thief@example.com"}
        await Address().ask(house)
        await house.drain()
        body: dict[str, Any] = {"email": "right@example.com", "current_password": PASSWORD}
        assert await house.send("PATCH", "/profile", await house.login(), **body) == 200
        await house.drain()
        server.refuses = set()
        await make_due(committed)
        await house.drain()

        assert house.texts("thief@example.com") == []
        assert await Address().use(house, house.links("right@example.com")[-1]) == 204


class TestAtOnce:
    async def test_of_a_reset_and_a_move_at_once_one_counts(self, committed: Database, house: House) -> None:
        await Address().ask(house)
        await get_reset_link(house)
        (move,) = house.links("thief@example.com")

        codes = await asyncio.gather(Address().use(house, move), Reset().use(house, house.prepared))

        assert sorted(codes) == [204, 422]

    async def test_a_link_that_waits_for_a_remedy_is_void(self, committed: Database, house: House) -> None:
        await Address().ask(house)
        await house.drain()
        async with committed.session_scope() as remedy:
            await UserRepository().raise_stamp(db=remedy, user_id=house.user_id)
            using = asyncio.create_task(Address().use(house, house.links("thief@example.com")[0]))
            await waits(remedy, using)

        assert await using == 422

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("PATCH", "/profile", {"email": "thief@example.com"}),
            ("PATCH", "/profile", {"username": "thief"}),
            ("POST", "/profile/password", {"new_password": "the thief's own one"}),
            ("DELETE", "/profile", {}),
        ],
        ids=str,
    )
    async def test_a_change_that_waits_while_its_session_ends_is_refused(
        self, committed: Database, house: House, method: str, path: str, body: dict[str, Any]
    ) -> None:
        headers = await house.login()
        given = body if "username" in body else {**body, "current_password": PASSWORD}
        async with committed.session_scope() as remedy:
            await UserRepository().raise_stamp(db=remedy, user_id=house.user_id)
            await SessionRepository().revoke(db=remedy, user_id=house.user_id, reason=EndReason.LOGOUT)
            changing = asyncio.create_task(house.send(method, path, headers, **given))
            await waits(remedy, changing)

        assert await changing == 401
        await house.login()
        async with committed.session(read_only=True) as session:
            assert await session.scalar(select(Job.id).where(Job.task == SendEmailChange.__task_name__)) is None


async def waits(session: AsyncSession, task: "asyncio.Task[int]") -> None:
    """Until `task` waits for what `session` has locked. SQLite does not tell: there it may only be about to."""
    waiting = text("SELECT count(*) FROM pg_locks WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))")
    async with asyncio.timeout(30):
        while session.get_bind().dialect.name == "postgresql" and not await session.scalar(waiting):
            assert not task.done()
            await asyncio.sleep(0.01)


class TestCompletedMove:
    @pytest.mark.parametrize("required", [True, False])
    async def test_the_session_that_asked_stays_and_others_end(
        self, db: AsyncSession, house: House, configure: Configure, required: bool
    ) -> None:
        configure(USER_VERIFICATION_REQUIRED=required)
        other, asking = await house.login(), await house.login()
        body: dict[str, Any] = {"email": "new@example.com", "current_password": PASSWORD}
        assert await house.send("PATCH", "/profile", asking, **body) == 200
        await house.drain()
        if required:
            assert await house.send("GET", "/profile", other) == 200, "asked for is not done"
            assert await Address().use(house, house.links("new@example.com")[0]) == 204

        assert await house.send("GET", "/profile", asking) == 200
        assert await house.send("GET", "/profile", other) == 401
        await house.drain()
        assert "is now new@example.com" in house.texts("owner@example.com")[-1]

    async def test_all_end_where_the_session_that_asked_has_ended(self, db: AsyncSession, house: House) -> None:
        other = await house.login()
        await Address().ask(house)
        await house.drain()
        last = (await db.scalars(select(AuthSession).order_by(AuthSession.id.desc()))).first()
        assert last is not None
        await SessionRepository().revoke(db=db, user_id=house.user_id, session_id=last.id, reason=EndReason.REVOKED)
        await db.commit()

        assert await Address().use(house, house.links("thief@example.com")[0]) == 204
        assert await house.send("GET", "/profile", other) == 401


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
        self, db: AsyncSession, house: House, remedy: Step, told: str, ends: bool
    ) -> None:
        before = await house.login()
        await REMEDIES[remedy](house)
        house.mails.clear()

        await remedy(house)
        mails = [job.payload for job in await db.scalars(select(Job).where(Job.task == SendMail.__task_name__))]
        assert "a new long password" not in str(mails)
        await house.drain()

        (notice,) = house.texts("owner@example.com")
        assert told in notice
        assert "#token=" not in notice
        assert await house.send("GET", "/profile", before) == (401 if ends else 200)

    async def test_a_new_superuser_is_told(self, db: AsyncSession, house: House) -> None:
        body: dict[str, Any] = {"email": "boss@example.com", "username": "boss", "is_superuser": True}
        assert await house.send("POST", "/users", house.admin, **body, password=PASSWORD) == 201
        await house.drain()

        assert any("was made an administrator" in text for text in house.texts("boss@example.com"))

    async def test_a_name_nobody_stands_for_is_in_no_mail(self, db: AsyncSession, house: House) -> None:
        """Mail programs make a link of it, and anybody can register anybody's address."""
        name, victim = "www.evil.example23698", "victim@example.com"
        body: dict[str, Any] = {"email": victim, "username": name, "password": PASSWORD}
        for _ in range(2):  # the second time the address is taken
            assert await house.send("POST", "/auth/register", **body) == 202
        assert await house.send("POST", "/auth/register", **{**body, "email": "next@example.com"}) == 202
        for path in ("restore-password", "resend-verification"):
            assert await house.send("POST", f"/auth/{path}", email=victim) == 202
        await house.administer(username="www.evil.example")
        body = {"email": "friend@example.com", "current_password": PASSWORD}
        assert await house.send("PATCH", "/profile", await house.login(), **body) == 200
        await house.drain()

        mails = [house.texts(address) for address in (victim, "next@example.com", "friend@example.com")]
        assert [len(texts) for texts in mails] == [4, 1, 1]
        assert "evil" not in str(mails)


class TestUnverified:
    async def test_an_account_made_unverified_is_logged_out(self, db: AsyncSession, house: House) -> None:
        headers = await house.login()
        await house.administer(is_verified=False)
        assert await house.send("GET", "/profile", headers) == 401

    async def test_it_refreshes_no_session(self, db: AsyncSession, house: House) -> None:
        data = {"username": house.email, "password": PASSWORD}
        tokens = (await house.client.post(f"{API}/auth/login", data=data)).json()
        await set_verified(house, verified=False)
        assert await house.send("POST", "/auth/refresh-token", refresh_token=tokens["refresh_token"]) == 401


class TestWelcome:
    async def test_a_link_comes_with_it_unless_a_remedy_came_since(self, db: AsyncSession, house: House) -> None:
        for name, remedies in {"ann": 0, "bob": 1}.items():
            body: dict[str, Any] = {"email": f"{name}@example.com", "username": name, "password": PASSWORD}
            assert await house.send("POST", "/auth/register", **body) == 202
            house.user_id = (await db.scalars(select(User.id).where(User.username == name))).one()
            for _ in range(remedies):
                await disable_and_enable(house)
        await house.drain()

        assert [len(house.links(f"{name}@example.com")) for name in ("ann", "bob")] == [1, 0]
        assert len(house.texts("bob@example.com")) == 1


class TestStoredBefore:
    async def test_a_job_without_a_stamp_counts_unless_a_remedy_came_since(
        self, db: AsyncSession, house: House
    ) -> None:
        asked = Job.task == SendPasswordReset.__task_name__
        for expected in (1, 1):
            await Reset().ask(house)
            unfinished = update(Job).where(asked, Job.finished_at.is_(None))
            await db.execute(unfinished.values(payload={"user_id": house.user_id}))
            await db.commit()
            await house.drain()
            assert len(house.links(house.email)) == expected
            await log_out_everywhere(house)


class TestOperator:
    async def test_an_unknown_login(self, db: AsyncSession, house: House) -> None:
        for login in ("nobody", "nobody@example.com", "no@", ""):
            with pytest.raises(UserNotFound):
                await reset_password(login, SecretStr("a new long password"))

    async def test_a_disabled_account_stays_disabled(self, db: AsyncSession, house: House) -> None:
        await house.administer(status_id=UserStatus.DISABLED)
        user = await reset_password((await house.row()).username, SecretStr("a new long password"))
        assert user.status_id == UserStatus.DISABLED
