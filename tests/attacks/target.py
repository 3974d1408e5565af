"""What is attacked: a service in this process or behind URLs, with accounts to attack it with."""

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import httpx

from tests.attacks.document import Document, Operation, new_address, new_name, new_password
from tests.attacks.report import Report

OPEN_ADDRESSES = 32
"""Clients kept open; the one used longest ago is closed."""
_LINK = re.compile(r"#token=([\w.~-]+)")


class Unavailable(Exception):
    """The target does not offer what an attack needs: the case cannot be judged."""


@dataclass
class Account:
    """An account of the suite, with the tokens of one login."""

    email: str
    username: str
    password: str
    id: int | None = None
    access: str = ""
    refresh: str = ""
    login: dict[str, Any] = field(default_factory=dict)
    """The whole token answer."""


class Inside(Protocol):
    """What only those see who run the service themselves."""

    jwt_secret: str

    async def settle(self) -> None:
        """Until every job that is due has run."""

    def mails(self) -> list[EmailMessage]:
        """Every mail, oldest first."""

    def stored(self) -> Iterator[tuple[str, str]]:
        """All that was logged, mailed and stored, as pairs of place and text."""


Transport = Callable[[str], httpx.AsyncBaseTransport]
"""Makes a transport whose requests come from an address."""


@dataclass
class Target:
    """The service. `urls` names its processes, which share one database; `members` are ordinary accounts."""

    urls: Sequence[str]
    transport: Transport
    document: Document
    admin: Account | None = None
    members: list[Account] = field(default_factory=list)
    key: str = ""
    inside: Inside | None = None
    limits: "Callable[[], AbstractAsyncContextManager[Target]] | None" = None
    """Opens the same service with its rate limits on; None where they are on."""
    own_addresses: bool = False
    """True where requests can come from any 127.x.y.z."""
    full: bool = False
    patience: float = 120
    """Seconds that an attack waits in all where it is told to come back later."""
    report: Report = field(default_factory=lambda: Report("start"))
    made: list[Account] = field(default_factory=list)
    roles: dict[int, str] = field(default_factory=dict)
    """Paths of the grants of our roles, by the id of the role."""
    _clients: dict[tuple[int, str], httpx.AsyncClient] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(secrets.randbelow(2**20)))
    _spare: Account | None = None
    _turns: Iterator[int] = field(default_factory=itertools.count)
    _stale: list[httpx.AsyncClient] = field(default_factory=list)
    _address: str = "127.0.0.1"
    _waited: float = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    @property
    def is_wire(self) -> bool:
        """True where a server reads what is sent; in process there is none."""
        return self.own_addresses is False or urlsplit(self.urls[0]).port is not None

    def begin(self, report: Report) -> None:
        """The next attack."""
        self.report = report
        self._waited = 0.0
        self.visit()

    def visit(self) -> str:
        """Come from another address from now on, where that can be."""
        if self.own_addresses:
            number = next(self._numbers)
            self._address = f"127.{number >> 14 & 63 | 64}.{number >> 7 & 127 | 128}.{number & 127 | 1}"
        return self._address

    def client(self, process: int, address: str) -> httpx.AsyncClient:
        """The client at an address."""
        key = (process % len(self.urls), address)
        if key not in self._clients:
            for old in list(self._clients)[: max(0, len(self._clients) - OPEN_ADDRESSES)]:
                # Its connections are idle: requests are sent through the newest ones.
                self._stale.append(self._clients.pop(old))
            self._clients[key] = httpx.AsyncClient(
                transport=self.transport(address), base_url=self.urls[key[0]], timeout=60, trust_env=False
            )
        return self._clients[key]

    async def once(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | Sequence[tuple[bytes, bytes]] | None = None,
        process: int | None = None,
        address: str | None = None,
        **given: Any,
    ) -> httpx.Response:
        """Send one request, to each process in turn; judge no more than whether the answer is a 5xx."""
        while self._stale:
            await self._stale.pop().aclose()
        client = self.client(next(self._turns) if process is None else process, address or self._address)
        client.cookies.clear()
        fields = httpx.Headers(headers)
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        answer = await client.request(method, path, headers=fields, **given)
        self.watch(f"{method} {path[:80]}", answer.status_code, answer.headers)
        return answer

    async def send(self, method: str, path: str, **given: Any) -> httpx.Response:
        """The same; where the service says to come back later, from another address or later."""
        for attempt in range(12):
            answer = await self.once(method, path, **given)
            if answer.status_code not in (429, 503) or "Retry-After" not in answer.headers:
                break
            if attempt < 2 and self.own_addresses and "address" not in given and answer.status_code == 429:
                self.visit()
            elif not await self._wait(answer):
                break
        return answer

    async def _wait(self, answer: httpx.Response) -> bool:
        seconds = float(answer.headers["Retry-After"]) + 0.1
        if self._waited + seconds > self.patience:
            return False
        self._waited += seconds
        if self.report.progress and seconds > 2:
            self.report.progress.wait(self.report, seconds)
        await asyncio.sleep(seconds)
        return True

    def watch(self, what: str, status: int, headers: Mapping[str, str]) -> None:
        """Note a 5xx: a failure, but for a 503 by which the service protects itself."""
        if status == 503 and "retry-after" in {name.lower() for name in headers}:
            self.report.note("the service protected itself with 503 and Retry-After")
        elif status >= 500:
            self.report.judge(what, False, f"answered {status}")

    def path(self, path: str) -> str:
        """A path below the API's prefix."""
        return self.document.prefix + path

    async def call(self, method: str, path: str, **given: Any) -> httpx.Response:
        """`send` to a path below the prefix."""
        return await self.send(method, self.path(path), **given)

    # Accounts

    async def log_in(self, account: Account, *, process: int | None = None) -> Account:
        """Log the account in once more; Unavailable if that is refused."""
        body = {"username": account.email, "password": account.password}
        answer = await self.call("POST", "/auth/login", data=body, process=process)
        if answer.status_code != 200:
            raise Unavailable(f"{account.email} cannot log in: {answer.status_code}")
        account.login = answer.json()
        account.access, account.refresh = account.login["access_token"], account.login.get("refresh_token", "")
        if account.id is None:
            profile = await self.call("GET", "/profile", token=account.access, process=process)
            account.id = profile.json()["data"]["id"] if profile.status_code == 200 else None
        return account

    async def again(self, account: Account, *, process: int | None = None) -> Account:
        """A second login of the same account."""
        copy = Account(account.email, account.username, account.password, account.id)
        return await self.log_in(copy, process=process)

    async def fresh(self, *, verified: bool = True, logged_in: bool = True) -> Account:
        """An account to break: made by the administrator, or registered."""
        account = Account(new_address(), new_name(), new_password())
        body: dict[str, Any] = {"email": account.email, "username": account.username, "password": account.password}
        if self.admin:
            body["is_verified"] = verified
            answer = await self.call("POST", "/users", json=body, token=await self.admin_token())
            if answer.status_code != 201:
                raise Unavailable(f"the administrator cannot make an account: {answer.status_code}")
            account.id = answer.json()["data"]["id"]
        elif (await self.call("POST", "/auth/register", json=body)).status_code != 201:
            raise Unavailable("needs accounts of its own: give an administrator, or allow registration without mail")
        self.made.append(account)
        return await self.log_in(account) if logged_in else account

    async def spare(self) -> Account:
        """An account of ours that need not be as it was made: the same until its session ends."""
        if self._spare is None or (await self.call("GET", "/profile", token=self._spare.access)).status_code != 200:
            self._spare = await self.fresh()
        return self._spare

    async def member(self, number: int = 0) -> Account:
        """An ordinary account: one that was given, else one of ours."""
        while len(self.members) <= number:
            self.members.append(await self.fresh())
        account = self.members[number]
        if (await self.call("GET", "/profile", token=account.access)).status_code != 200:
            await self.log_in(account)
        return account

    async def admin_token(self) -> str:
        """A token of the administrator that works."""
        if self.admin is None:
            raise Unavailable("needs an administrator")
        if not self.admin.access or (await self.call("GET", "/profile", token=self.admin.access)).status_code != 200:
            await self.log_in(self.admin)
        return self.admin.access

    async def tidy(self) -> None:
        """Delete the accounts and roles of the suite, as far as that is allowed."""
        self.begin(Report("tidy"))
        for role_id, grant in self.roles.items():  # first: one that an account had cannot be deleted after it
            for path in (grant, f"/roles/{role_id}"):
                await self.call("DELETE", path, token=await self.admin_token())
        for account in self.made:
            if self.admin and account.id is not None:
                await self.call("DELETE", f"/users/{account.id}", token=await self.admin_token())
            else:
                body = {"current_password": account.password}
                await self.call("DELETE", "/profile", json=body, token=account.access)

    # What only insiders have

    async def mailed(self, address: str, page: str = "") -> str:
        """The token of the newest link to `page` in the mails to `address`; Unavailable without a mailbox."""
        if self.inside is None:
            raise Unavailable("needs the mailbox")
        await self.inside.settle()
        for mail in reversed(self.inside.mails()):
            if mail["Delivered-To"] == address and (found := link_in(mail)) and page in found[0]:
                return found[1]
        raise Unavailable(f"no link was mailed to {address}")

    async def reset_token(self, account: Account) -> str:
        """Ask for a link that sets a new password."""
        await self.call("POST", "/auth/restore-password", json={"email": account.email})
        return await self.mailed(account.email, "reset-password")

    async def verification_token(self, account: Account) -> str:
        """Ask for a link that verifies the address."""
        await self.call("POST", "/auth/resend-verification", json={"email": account.email})
        return await self.mailed(account.email, "verify-email")

    async def change_token(self, account: Account) -> tuple[str, str]:
        """Ask for another address; the token sent there and the address."""
        address = new_address()
        body = {"email": address, "current_password": account.password}
        await self.call("PATCH", "/profile", json=body, token=account.access)
        return await self.mailed(address), address

    async def filled(self, operation: Operation, ids: Mapping[str, object] | None = None) -> str:
        """Its path with `ids`, else with values that fit."""
        path = operation.path
        for one in operation.parameters("path"):
            name = one["name"]
            value = (ids or {}).get(name, self.document.example(one.get("schema", {}), name))
            path = path.replace("{" + name + "}", str(value))
        return path


def link_in(mail: EmailMessage) -> tuple[str, str] | None:
    """The URL before the token, and the token."""
    body = mail.get_body(("plain",))
    text = str(body.get_content()) if body else ""
    found = _LINK.search(text)
    return (text[: found.start()].split()[-1], found[1]) if found else None


def query_of(operation: Operation) -> dict[str, Any]:
    """Values of the query parameters that it must have."""
    needed = [one for one in operation.parameters("query") if one.get("required")]
    return {one["name"]: operation.document.example(one.get("schema", {}), one["name"]) for one in needed}


@asynccontextmanager
async def stopwatch() -> AsyncIterator[list[float]]:
    """Seconds that the block took, appended."""
    began, taken = time.perf_counter(), list[float]()
    yield taken
    taken.append(time.perf_counter() - began)
