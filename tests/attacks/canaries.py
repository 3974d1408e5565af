"""Canaries: secrets that are looked for afterwards in logs, answers, stores, jobs and mails."""

import base64
import json
import re
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx

from tests.attacks.document import new_password
from tests.attacks.report import Report
from tests.attacks.target import Account, Target, Unavailable

_QUERIES = ("token", "access_token", "password", "api_key", "key", "secret")


async def attack(target: Target, report: Report) -> None:
    """Send secrets wherever one can be sent, use real ones, then look for all of them."""
    hunt = _Hunt(target, report)
    await hunt.fields()
    await hunt.headers()
    await hunt.flows()
    hunt.judge_answers()
    if target.inside is None:
        report.judge("logs, stores and mails", None, "only whoever runs the service can read them")
        return
    await target.inside.settle()
    hunt.judge_stored()


def new_canary() -> str:
    """A text that is found again: an acceptable password too."""
    return f"cnry-{secrets.token_hex(14)}-Zq7"


def spellings(canary: str) -> Iterator[str]:
    """How it may be written."""
    yield canary
    yield quote(canary)
    yield canary[::-1]
    yield json.dumps(canary)[1:-1]
    for cut in range(3):  # base64 of a text depends on where it begins
        text = base64.b64encode(b"\0" * cut + canary.encode()).decode().rstrip("=")
        yield text[4 if cut else 0 : -4]


class _Hunt:
    """The canaries by where they were sent, and the answers."""

    def __init__(self, target: Target, report: Report) -> None:
        self.target = target
        self.report = report
        self.sent: dict[str, str] = {}
        self.answers: list[tuple[str, httpx.Response]] = []

    def canary(self, place: str) -> str:
        """A new one."""
        made = new_canary()
        self.sent[made] = place
        return made

    def kept(self, secret: str, place: str) -> str:
        """A secret that the service made."""
        self.sent[secret] = place
        return secret

    async def send(self, place: str, method: str, path: str, **given: Any) -> httpx.Response:
        """Send, and keep the answer."""
        answer = await self.target.send(method, path, **given)
        self.answers.append((place, answer))
        return answer

    async def fields(self) -> None:
        """A canary in every secret field, of a body that fits and of one that does not."""
        target = self.target
        for operation in target.document.operations:
            for kind, schema in operation.bodies.items():
                target.visit()
                account = await target.spare() if operation.secured else None
                for name, one in operation.fields(schema).items():
                    if not target.document.is_secret(name, one):
                        continue
                    place = f"{operation}, field {name}"
                    fitting = operation.example(kind)
                    for body in (
                        fitting | {name: self.canary(place)},
                        {name: self.canary(place), "x": 1},
                        {name: [self.canary(place)]},
                    ):
                        arguments: dict[str, Any] = {kind: body}
                        token = account.access if account else None
                        await self.send(
                            place, operation.method, await target.filled(operation), token=token, **arguments
                        )
                    broken = f'{{"{name}": "{self.canary(place)}", '.encode()
                    headers = {"Content-Type": "application/json"}
                    await self.send(
                        place, operation.method, await target.filled(operation), content=broken, headers=headers
                    )
                    wrong = {"Content-Type": "text/plain"}
                    content = json.dumps({name: self.canary(place)})
                    await self.send(
                        place, operation.method, await target.filled(operation), content=content, headers=wrong
                    )

    async def headers(self) -> None:
        """A canary in every header and query parameter that people put credentials into."""
        target = self.target
        reading = [one for one in target.document.operations if one.method == "GET" and one.secured][:6]
        for operation in reading:
            path = await target.filled(operation)
            place = f"{operation}, credentials"
            basic = base64.b64encode(f"user:{self.canary(place)}".encode()).decode()
            values = {
                "Authorization": f"Bearer {self.canary(place)}",
                "Proxy-Authorization": f"Basic {basic}",
                "X-API-Key": self.canary(place),
                "Cookie": f"session={self.canary(place)}; access_token={self.canary(place)}",
                "X-Auth-Token": self.canary(place),
            }
            await self.send(place, "GET", path, headers=values)
            await self.send(place, "GET", path, headers={"Authorization": f"Basic {basic}"})
            for name in _QUERIES:
                place = f"{operation}, query parameter {name}"
                await self.send(place, "GET", path, params={name: self.canary(place)})

    async def flows(self) -> None:
        """Secrets that work: passwords, tokens, links, keys, from first use to last."""
        target = self.target
        account = await target.fresh(logged_in=False)
        self.kept(account.password, "the password of an account")
        await target.log_in(account)
        self._tokens(account)
        answer = await target.call("POST", "/auth/refresh-token", json={"refresh_token": account.refresh})
        if answer.status_code == 200:
            self.kept(answer.json()["refresh_token"], "a refreshed token")
        await target.call("POST", "/auth/refresh-token", json={"refresh_token": account.refresh})
        new = self.kept(new_password(), "a changed password")
        body = {"current_password": account.password, "new_password": new}
        await self.send(
            "a change of password", "POST", target.path("/profile/password"), json=body, token=account.access
        )
        account.password = new
        await target.log_in(account)
        self._tokens(account)
        await self._links(account)
        await self._keys(account)

    def _tokens(self, account: Account) -> None:
        for name, value in account.login.items():
            if isinstance(value, str) and len(value) >= 20:
                self.kept(value, f"{name} of a login")

    async def _links(self, account: Account) -> None:
        target = self.target
        try:
            unverified = await target.fresh(verified=False, logged_in=False)
            for place, token in (
                ("a verification link", await target.verification_token(unverified)),
                ("a link for a new address", (await target.change_token(account))[0]),
                ("a reset link", await target.reset_token(account)),
            ):
                self.kept(token, place)
                new = self.kept(new_password(), "a reset password")
                await self.send(place, "POST", target.path("/auth/verify-email"), json={"token": token})
                await self.send(
                    place, "POST", target.path("/auth/reset-password"), json={"token": token, "new_password": new}
                )
        except Unavailable as missing:
            self.report.judge("mailed links", None, missing)

    async def _keys(self, account: Account) -> None:
        """The secret of an API key: shown once, with the answer that makes it."""
        making = self.target.document.find("POST", "/api-keys")
        if making is None:
            return
        owner = await self.target.fresh()
        answer = await self.target.send("POST", making.path, json=making.example(), token=owner.access)
        data = answer.json().get("data", {}) if answer.status_code == 201 else {}
        for name, value in data.items():
            if name in ("key", "secret", "api_key", "token") and isinstance(value, str):
                self.kept(value, "an API key")
                for headers in ({"X-API-Key": value}, {"Authorization": f"Bearer {value}"}):
                    await self.send("use of an API key", "GET", self.target.path("/profile"), headers=headers)
                await self.send("list of API keys", "GET", making.path, token=owner.access)

    def judge_answers(self) -> None:
        """No answer repeats a secret that was sent."""
        for place, answer in self.answers:
            shown = answer.text + "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
            found = self._in(shown)
            self.report.judge(f"answer to {place}", not found, f"status {answer.status_code} repeats {found}")

    def judge_stored(self) -> None:
        """Nor does anything that stays."""
        inside = self.target.inside
        assert inside is not None
        places: dict[str, list[str]] = {}
        texts = list(inside.stored())
        for where, text in texts:
            places.setdefault(where, [])
            found = self._in(text)
            if found:
                places[where].append(found)
        for where, found_in in places.items():
            self.report.judge(where, not found_in, f"has {', '.join(sorted(set(found_in)))}")
        if "log" not in places:
            self.report.judge("log", None, "nothing was logged: was it read?")

    def _in(self, text: str) -> str:
        """The place a canary in `text` was sent to, "" if there is none."""
        if not text:
            return ""
        if self._pattern is None or self._known != len(self.sent):
            self._known = len(self.sent)
            self._spelt = {spelt: place for canary, place in self.sent.items() for spelt in spellings(canary)}
            self._pattern = re.compile("|".join(map(re.escape, self._spelt)))
        found = self._pattern.search(text)
        return f"the secret of {self._spelt[found[0]]}" if found else ""

    _pattern: re.Pattern[str] | None = None
    _known = 0
    _spelt: dict[str, str] = {}  # noqa: RUF012  replaced, never changed
