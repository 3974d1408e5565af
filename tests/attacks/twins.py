"""Identity twins: other spellings of a user name or an address must be neither a second account nor a way in."""

import unicodedata
from collections.abc import Iterator

from tests.attacks.document import new_address, new_name, new_password
from tests.attacks.report import Report
from tests.attacks.target import Account, Target, Unavailable

_INVISIBLE = (
    "\u200b",
    "\u200c",
    "\u200d",
    "\ufeff",
    "\u2060",
    "\u00ad",
    "\u180e",
    "\u202e",
    "\u200e",
    "\ufe0f",
    "\u034f",
    "\u115f",
)
_LOOKALIKES = str.maketrans("aceiopstxy", "\u0430\u0441\u0435\u0456\u043e\u0440\u0455\u03c4\u0445\u0443")


async def attack(target: Target, report: Report) -> None:
    """Make, rename, reset and log in by every twin of one account."""
    victim, thief = await target.fresh(), await target.member(1)
    for kind, twins in (("name", name_twins(victim.username)), ("address", address_twins(victim.email))):
        for number, (how, twin) in enumerate(twins):
            if how.startswith("domain") and number % 3 and not target.full:
                continue  # no name server has most of these
            target.visit()
            await _make(target, report, victim, kind, how, twin)
            await _become(target, report, (victim, thief), kind, how, twin)
            await _enter(target, report, thief, how, twin)
    await _mail(target, report, victim)


def name_twins(name: str) -> Iterator[tuple[str, str]]:
    """Spellings that people or databases may take for this user name."""
    yield "in capitals", name.upper()
    yield "with one capital", name.capitalize()
    yield "full width", "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in name)
    yield "mathematical", "".join(chr(0x1D41A + ord(one) - 97) if "a" <= one <= "z" else one for one in name)
    yield "Cyrillic lookalikes", name.translate(_LOOKALIKES)
    yield "dotless i", name.replace("a", "\u0131", 1)
    yield "a combining accent", name + "\u0301"
    yield "long s and Kelvin", name.replace("k", "\u212a").replace("s", "\u017f")
    for one in _INVISIBLE:
        yield f"U+{ord(one):04X} within", name[:3] + one + name[3:]
    for text in (" ", "\t", "\n", "\u00a0", "\u3000", "\0"):
        yield f"{text!r} behind", name + text
        yield f"{text!r} before", text + name
    yield "percent encoded", name.replace("a", "%61", 1)


def address_twins(address: str) -> Iterator[tuple[str, str]]:
    """The same for an address: local part and domain."""
    local, domain = address.split("@")
    for how, twin in name_twins(local):
        yield f"local part {how}", f"{twin}@{domain}"
    for how, twin in name_twins(domain):
        yield f"domain {how}", f"{local}@{twin}"
    yield "a dot at the end", f"{address}."
    yield "quoted", f'"{local}"@{domain}'
    yield "a comment", f"{local}(x)@{domain}"
    yield "a display name", f"x <{address}>"
    yield "two addresses", f"{address},{new_address()}"
    yield "a second at sign", f"{address}@{domain}"
    yield "a line break and a copy", f"{address}\r\nBcc: {new_address()}"
    yield "an ideographic full stop", f"{local}@{domain.replace('.', chr(0x3002))}"
    yield "a source route", f"@evil.example.net:{address}"
    yield "a percent hack", f"{local}%{domain}@evil.example.net"[:250]


def same(one: str, other: str, kind: str) -> bool:
    """True if people would take one for the other. A lookalike in an address is another mailbox, which is proven."""
    return _skeleton(one, lookalikes=kind == "name") == _skeleton(other, lookalikes=kind == "name")


def _skeleton(text: str, *, lookalikes: bool) -> str:
    text = unicodedata.normalize("NFKC", text)
    kept = [one for one in text if one not in _INVISIBLE and unicodedata.category(one) not in ("Cf", "Cc", "Zs")]
    back = {chr(after): chr(before) for before, after in _LOOKALIKES.items()} if lookalikes else {}
    return "".join(back.get(one, one) for one in kept).casefold().rstrip(".")


def _stored(content: object, kind: str) -> str:
    data = content.get("data", {}) if isinstance(content, dict) else {}
    return str(data.get("username" if kind == "name" else "email", ""))


async def _make(target: Target, report: Report, victim: Account, kind: str, how: str, twin: str) -> None:
    """No second account. (One whose stored name differs for everybody to see is none.)"""
    body = {"email": new_address(), "username": new_name(), "password": new_password()}
    body["username" if kind == "name" else "email"] = twin
    token = await target.admin_token() if target.admin else None
    path = "/users" if token else "/auth/register"
    answer = await target.call("POST", path, json=body, token=token)
    stored = _stored(answer.json(), kind) if answer.status_code == 201 else ""
    own = victim.username if kind == "name" else victim.email
    held = not same(stored, own, kind) if stored else answer.status_code != 201
    report.judge(f"{kind} {how}: a second account", held, f"{answer.status_code}, stored as {stored!r}")


async def _become(
    target: Target, report: Report, accounts: tuple[Account, Account], kind: str, how: str, twin: str
) -> None:
    """Nor is an account renamed to it."""
    victim, thief = accounts
    body = {"username": twin} if kind == "name" else {"email": twin, "current_password": thief.password}
    answer = await target.call("PATCH", "/profile", json=body, token=thief.access)
    if answer.status_code != 200:
        report.judge(
            f"{kind} {how}: an account renamed", True if answer.status_code != 429 else None, answer.status_code
        )
        return
    stored = _stored(answer.json(), kind)
    own = victim.username if kind == "name" else victim.email
    report.judge(f"{kind} {how}: an account renamed", not same(stored, own, kind), f"is {stored!r}")


async def _enter(target: Target, report: Report, thief: Account, how: str, twin: str) -> None:
    """A twin with another's password lets nobody in."""
    answer = await target.call("POST", "/auth/login", json={"username": twin, "password": thief.password})
    report.judge(f"{how}: login with another password", answer.status_code in (400, 401, 422, 429), answer.status_code)


async def _mail(target: Target, report: Report, victim: Account) -> None:
    """A link goes to the stored address, in its spelling, whatever was asked for."""
    if target.inside is None:
        report.judge("links asked for by twins", None, Unavailable("needs the mailbox"))
        return
    for _, twin in address_twins(victim.email):
        target.visit()
        await target.call("POST", "/auth/restore-password", json={"email": twin})
    await target.inside.settle()
    ours = {victim.email, *(account.email for account in (*target.made, *target.members))}
    for mail in target.inside.mails():
        address = str(mail["Delivered-To"])
        report.judge(
            "a link for a twin",
            address in ours or not same(address, victim.email, "address"),
            f"was mailed to {address!r}",
        )
