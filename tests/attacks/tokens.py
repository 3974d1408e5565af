"""Every kind of token wherever a token can be given: only the right one, in the right place, while it is in force."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.attacks.document import Operation
from tests.attacks.forging import forged, kid_of, parts, pem_forms, signed
from tests.attacks.report import Report
from tests.attacks.target import Account, Target, Unavailable, query_of

_FIELD_WORDS = ("token", "secret", "code", "api_key")
_REFUSED = (400, 401, 403, 404, 405, 409, 422)


@dataclass
class Tokens:
    """Tokens by kind, which are all in force, those that are not, and whose they are."""

    live: dict[str, str] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)
    owners: dict[str, Account] = field(default_factory=dict)


async def attack(target: Target, report: Report) -> None:
    """Each token at every endpoint and in every field that takes one; forged ones at the caller's profile."""
    tokens = await collect(target, report)
    await _bearers(target, report, tokens)
    await _fields(target, report, tokens)
    await _places(target, report, tokens)
    await _forgeries(target, report, tokens)
    await _still_live(target, report, tokens)


async def collect(target: Target, report: Report) -> Tokens:
    """Get every kind of token that this target gives out."""
    found = Tokens()
    account = await target.again(await target.member())
    found.live["access"], found.owners["access"] = account.access, account
    for name, value in account.login.items():
        if isinstance(value, str) and name.endswith("_token") and name != "access_token":
            found.live[name.removesuffix("_token")] = value
    for kind, ask in (("reset", target.reset_token), ("verification", target.verification_token)):
        try:
            owner = await target.fresh(verified=kind != "verification", logged_in=kind == "reset")
            found.live[kind] = await ask(owner)
            found.owners[kind] = owner
        except Unavailable as missing:
            report.judge(f"{kind} tokens", None, missing)
    try:
        owner = await target.fresh()
        found.live["change-email"], _ = await target.change_token(owner)
        found.owners["change-email"] = owner
    except Unavailable as missing:
        report.judge("change-email tokens", None, missing)
    await _keys(target, report, found)
    await _ended(target, report, found)
    return found


async def _keys(target: Target, report: Report, found: Tokens) -> None:
    """An API key of a member and one that was revoked."""
    if target.key:
        found.live["key"] = target.key
    making = target.document.find("POST", "/api-keys")
    if making is None:
        if not target.key:
            report.note("the target has no API keys")
        return
    owner = await target.fresh()
    for kept in (found.live, found.dead):
        answer = await target.send("POST", making.path, json=making.example(), token=owner.access)
        data = answer.json().get("data", {}) if answer.status_code == 201 else {}
        secret = next((value for name, value in data.items() if name in ("key", "secret", "api_key", "token")), "")
        if not secret:
            report.judge("API keys", None, f"POST /api-keys answered {answer.status_code}")
            return
        kept["key" if kept is found.live else "revoked key"] = secret
    await target.send("DELETE", f"{making.path}/{data['id']}", token=owner.access)


async def _ended(target: Target, report: Report, found: Tokens) -> None:
    """Access tokens whose session, account or time is over, and refresh tokens of such."""
    owner = await target.fresh()
    await target.call("POST", "/auth/logout", token=owner.access)
    found.dead |= {"access of an ended session": owner.access, "refresh of an ended session": owner.refresh}
    gone = await target.fresh()
    await target.call("DELETE", "/profile", json={"current_password": gone.password}, token=gone.access)
    found.dead |= {"access of a deleted account": gone.access, "refresh of a deleted account": gone.refresh}
    if target.admin:
        disabled = await target.fresh()
        body = {"status_id": 2}
        answer = await target.call("PATCH", f"/users/{disabled.id}", json=body, token=await target.admin_token())
        report.judge("an administrator can disable an account", answer.status_code == 200 or None, answer.status_code)
        found.dead |= {
            "access of a disabled account": disabled.access,
            "refresh of a disabled account": disabled.refresh,
        }
    known = parts(found.live["access"])
    if known and (secret := _secret(target)) and known[0].get("kid") == kid_of(secret):
        header, claims, _ = known
        past = claims | {"iat": claims["iat"] - 10**5, "exp": claims["exp"] - 10**5}
        found.dead["expired access"] = signed(header, past, secret.encode())


def _secret(target: Target) -> str:
    return target.inside.jwt_secret if target.inside else ""


async def _bearers(target: Target, report: Report, tokens: Tokens) -> None:
    """No token but an access token or a key is a bearer, and no credential at all is none."""
    wrong = {kind: token for kind, token in tokens.live.items() if kind not in ("access", "key")} | {
        kind: token for kind, token in tokens.dead.items() if not kind.startswith("refresh")
    }
    public = [str(one) for one in target.document.operations if not one.secured]
    report.note(f"open to anybody by the document: {', '.join(public)}")
    for operation in (one for one in target.document.operations if one.secured):
        for kind, token in {"no credential": None, **wrong}.items():
            answer = await _sent(target, operation, token=token)
            held = answer.status_code in (401, 403)
            report.judge(f"{operation} with {kind} as bearer", held or _throttled(answer), answer.status_code)
        for header in target.document.key_headers:
            for kind, token in tokens.live.items():
                if kind != "key":
                    answer = await _sent(target, operation, headers={header: token})
                    held = answer.status_code in (401, 403)
                    report.judge(f"{operation} with {kind} in {header}", held or _throttled(answer), answer.status_code)


async def _sent(target: Target, operation: Operation, **given: Any) -> httpx.Response:
    kind = next(iter(operation.bodies), None)
    body = {kind: operation.example(kind)} if kind else {}
    return await target.send(
        operation.method, await target.filled(operation), params=query_of(operation), **body, **given
    )


def _throttled(answer: httpx.Response) -> bool | None:
    """None where the answer says nothing but "later"."""
    return None if answer.status_code in (429, 503) else False


def token_fields(operation: Operation) -> Iterator[tuple[str, str]]:
    """Kind of body and name of each of its fields that takes a token."""
    for kind, schema in operation.bodies.items():
        for name, one in operation.fields(schema).items():
            if any(word in name for word in _FIELD_WORDS) and one.get("type", "string") == "string":
                yield kind, name


def _expected(target: Target, operation: Operation, name: str) -> set[str]:
    """The kinds of token that a field is for; what a fork's own fields are for is not known."""
    path = operation.path.removeprefix(target.document.prefix)
    known = {
        "/auth/refresh-token": {"refresh"},
        "/auth/reset-password": {"reset"},
        "/auth/verify-email": {"verification", "change-email"},
    }
    return known.get(path, {"key", "revoked key"} if "secret" in name or "key" in name else set())


async def _fields(target: Target, report: Report, tokens: Tokens) -> None:
    """In a field no token counts but one of its kind."""
    for operation in target.document.operations:
        for kind, name in token_fields(operation):
            right = _expected(target, operation, name)
            wrong = {one: token for one, token in (tokens.live | tokens.dead).items() if one not in right}
            wrong |= {
                "empty text": "",
                "blank": " ",
                "null text": "null",
                "wildcard": "%",
                "NUL": "\0",
                "long": "A" * 5000,
            }
            wrong |= {f"{one} with a blank": f" {tokens.live[one]}" for one in right if one in tokens.live}
            wrong |= {f"{one} in capitals": tokens.live[one].swapcase() for one in right if one in tokens.live}
            wrong |= {f"{one} cut": tokens.live[one][:-1] for one in right if one in tokens.live}
            for one, token in wrong.items():
                body = operation.example(kind) | {name: token}
                token_of = tokens.live["access"] if operation.secured else None
                arguments: dict[str, Any] = {kind: body, "token": token_of}
                answer = await target.send(operation.method, await target.filled(operation), **arguments)
                held = answer.status_code in _REFUSED
                report.judge(f"{operation} with {one} as {name}", held or _throttled(answer), answer.status_code)


async def _places(target: Target, report: Report, tokens: Tokens) -> None:
    """An access token counts as a bearer and nowhere else."""
    access = tokens.live["access"]
    path = target.path("/profile")
    places: dict[str, dict[str, Any]] = {
        "in the query": {"params": {"access_token": access}},
        "in the query as token": {"params": {"token": access}},
        "in a cookie": {"headers": {"Cookie": f"access_token={access}; Authorization=Bearer {access}"}},
        "as another scheme": {"headers": {"Authorization": f"Token {access}"}},
        "as Basic": {"headers": {"Authorization": f"Basic {access}"}},
        "without a scheme": {"headers": {"Authorization": access}},
        "with a comma": {"headers": {"Authorization": f"Bearer, {access}"}},
        "with two schemes": {"headers": {"Authorization": f"Bearer Bearer {access}"}},
        "in X-Access-Token": {"headers": {"X-Access-Token": access, "X-Auth-Token": access}},
        "in Proxy-Authorization": {"headers": {"Proxy-Authorization": f"Bearer {access}"}},
        "in X-Forwarded-Authorization": {"headers": {"X-Forwarded-Authorization": f"Bearer {access}"}},
        "as user": {"headers": {"X-User": "1", "X-Remote-User": "admin", "X-Forwarded-User": "admin"}},
        "as original URL": {"headers": {"X-Original-URL": path, "X-Rewrite-URL": path}},
        "as another method": {"headers": {"X-HTTP-Method-Override": "GET"}},
    }
    for place, given in places.items():
        answer = await target.send("GET", path, **given)
        report.judge(f"access token {place}", answer.status_code == 401 or _throttled(answer), answer.status_code)


async def _forgeries(target: Target, report: Report, tokens: Tokens) -> None:
    """No forged token is let in, and one that was not forged is."""
    secret = _secret(target)
    known = parts(tokens.live["access"])
    if known is None:
        report.note("access tokens are no JWTs: none was forged")
        return
    if secret and known[0].get("kid") != kid_of(secret):
        secret = ""
    jwks = await target.once("GET", "/.well-known/jwks.json")
    public = pem_forms(jwks.json()) if jwks.status_code == 200 else ()
    other = target.admin.id if target.admin and target.admin.id else 1
    send: Callable[[str], Any] = lambda token: target.send("GET", target.path("/profile"), token=token)  # noqa: E731
    for name, token in forged(tokens.live["access"], secret, public, other):
        try:
            answer = await send(token)
        except (UnicodeEncodeError, httpx.LocalProtocolError):
            continue  # no client could send it
        report.judge(f"forged: {name}", answer.status_code == 401 or _throttled(answer), answer.status_code)
    if secret:
        answer = await send(signed(known[0], known[1], secret.encode()))
        report.judge(
            "a token made as those above, with nothing wrong, works", answer.status_code == 200, answer.status_code
        )


async def _still_live(target: Target, report: Report, tokens: Tokens) -> None:
    """All these tokens were in force, and what was tried with them has not used them up."""
    answer = await target.call("GET", "/profile", token=tokens.live["access"])
    report.judge("the access token works after all that", answer.status_code == 200, answer.status_code)
    uses: dict[str, tuple[str, dict[str, Any]]] = {
        "refresh": ("/auth/refresh-token", {"refresh_token": tokens.live.get("refresh")}),
        "reset": (
            "/auth/reset-password",
            {"token": tokens.live.get("reset"), "new_password": "a fresh pass phrase 71"},
        ),
        "verification": ("/auth/verify-email", {"token": tokens.live.get("verification")}),
        "change-email": ("/auth/verify-email", {"token": tokens.live.get("change-email")}),
    }
    for kind, (path, body) in uses.items():
        if kind in tokens.live:
            answer = await target.call("POST", path, json=body)
            report.judge(
                f"the {kind} token works after all that", answer.is_success or _throttled(answer), answer.status_code
            )
            if kind != "refresh":
                again = await target.call("POST", path, json=body)
                report.judge(f"the {kind} token works once", not again.is_success, again.status_code)
