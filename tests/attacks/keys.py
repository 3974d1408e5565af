"""API keys: no wider than their owner and their scopes, dead when they end, and no way to more credentials."""

from collections.abc import Iterator
from typing import Any

import httpx

from tests.attacks.document import Operation
from tests.attacks.report import Report
from tests.attacks.roles import holding
from tests.attacks.target import Account, Target, Unavailable, query_of

_MANAGEMENT = ("/api-keys", "/auth/sessions", "/auth/logout", "/profile/password")
_NAMES = ("key", "secret", "api_key", "token")


async def attack(target: Target, report: Report) -> None:
    """Keys of a member and of the administrator, made by the public API."""
    if target.document.find("POST", "/api-keys") is None:
        raise Unavailable("the target has no API keys")
    owner = await target.fresh()
    made = await make(target, owner.access)
    key = made["secret"]
    works = await _read(target, {"X-API-Key": key})
    report.judge("a key works", works not in (401,), works)
    await _forged(target, report, key, (await make(target, (await target.fresh()).access))["secret"])
    await _management(target, report, key, made["id"])
    await _scopes(target, report, owner)
    await _grant(target, report, owner, made)
    await _ended(target, report)


async def make(target: Target, token: str, **more: Any) -> dict[str, Any]:
    """A new key: its id, its prefix and its secret."""
    making = target.document.find("POST", "/api-keys")
    assert making is not None
    answer = await target.send("POST", making.path, json=making.example() | more, token=token)
    data = answer.json().get("data", {}) if answer.status_code == 201 else {}
    secret = next((data[name] for name in _NAMES if name in data), "")
    if not secret:
        raise Unavailable(f"a key cannot be made: {answer.status_code} {answer.text[:200]}")
    return {**data, "secret": secret}


async def _read(target: Target, headers: Any, **given: Any) -> int:
    return (await target.call("GET", "/profile", headers=headers, **given)).status_code


def forged_keys(key: str, other: str) -> Iterator[tuple[str, str]]:
    """Names and texts made of two keys, neither of which is valid."""
    head, _, tail = key.rpartition("_")
    other_head, _, other_tail = other.rpartition("_")
    yield "another's prefix, own secret", f"{other_head}_{tail}"
    yield "own prefix, another's secret", f"{head}_{other_tail}"
    yield "without its checksum", key[:-6]
    yield "without its end", key[:-1]
    yield "without its secret", f"{head}_"
    yield "prefix alone", head
    yield "secret alone", tail
    yield "in capitals", key.swapcase()
    yield "doubled", key + key
    yield "with more behind it", key + "A"
    yield "two with a comma", f"{key},{other}"
    for number in (0, len(key) // 2, len(key) - 1):
        changed = "B" if key[number] != "B" else "C"
        yield f"character {number} changed", key[:number] + changed + key[number + 1 :]
    for text in ("", "null", "undefined", "*", "%", "' OR 1=1 --", "a" * 5_000, f"{head}_{'0' * len(tail)}", "\u00e9"):
        yield f"{text[:9]!r}", text


async def _forged(target: Target, report: Report, key: str, other: str) -> None:
    for name, text in forged_keys(key, other):
        for header, value in (("X-API-Key", text), ("Authorization", f"Bearer {text}".strip())):
            status = await _read(target, [(header.encode(), value.encode())])
            report.judge(f"key {name} in {header}", status in (400, 401) or _later(status), status)
    for place, given in {
        "the query": {"params": {"api_key": key, "key": key, "x-api-key": key}},
        "a cookie": {"headers": {"Cookie": f"X-API-Key={key}; api_key={key}"}},
        "Basic": {"headers": {"Authorization": f"Basic {key}"}},
    }.items():
        status = (await target.call("GET", "/profile", **given)).status_code
        report.judge(f"a key in {place}", status == 401 or _later(status), status)


def _later(status: int) -> bool | None:
    return None if status in (429, 503) else False


async def _management(target: Target, report: Report, key: str, key_id: object) -> None:
    """A key makes no key, ends no session and changes no password: who has one must not keep what they got by it."""
    for operation in target.document.operations:
        path = operation.path.removeprefix(target.document.prefix)
        if operation.secured and operation.method != "GET" and path.startswith(_MANAGEMENT):
            answer = await _sent(target, operation, key, dict.fromkeys(operation.placeholders, key_id))
            held = answer.status_code in (401, 403)
            report.judge(f"{operation} with a key", held or _later(answer.status_code), answer.status_code)


async def _sent(target: Target, operation: Operation, key: str, ids: dict[str, object]) -> httpx.Response:
    kind = next(iter(operation.bodies), None)
    body: dict[str, Any] = {kind: operation.example(kind)} if kind else {}
    path = await target.filled(operation, ids)
    return await target.send(operation.method, path, params=query_of(operation), headers={"X-API-Key": key}, **body)


async def _scopes(target: Target, report: Report, owner: Account) -> None:
    """A member's key for everything may do no more than the member, an administrator's for one thing only that."""
    operations = [one for one in target.document.operations if one.secured and one.permissions]
    permissions = sorted({name for one in operations for name in one.permissions})
    for permission in permissions:
        try:
            key = (await make(target, owner.access, scopes=[permission]))["secret"]
        except Unavailable:
            report.judge(f"a member's key for {permission} is not made", True)
        else:
            await _only(target, report, f"a member's key for {permission}", key, operations, owner)
        try:
            key = (await make(target, await target.admin_token(), scopes=[permission]))["secret"]
        except Unavailable as missing:
            report.judge(f"an administrator's key for {permission}", None, missing)
            continue
        others = [one for one in operations if permission not in one.permissions]
        await _only(target, report, f"an administrator's key for {permission}", key, others, owner)


async def _only(
    target: Target, report: Report, whose: str, key: str, operations: list[Operation], owner: Account
) -> None:
    for operation in operations:
        answer = await _sent(target, operation, key, {"user_id": owner.id})
        own = operation.method == "GET" and bool(operation.placeholders) and answer.status_code == 200
        held = answer.status_code in (401, 403, 404) or own
        report.judge(f"{operation} with {whose}", held or _later(answer.status_code), answer.status_code)


async def _grant(target: Target, report: Report, owner: Account, made: dict[str, Any]) -> None:
    """Client credentials (RFC 6749 section 4.4): the key itself, and no wider scope."""
    operation = target.document.find("POST", "/api-keys/token")
    if operation is None or "prefix" not in made:
        report.note("the target has no client credentials grant")
        return
    client = {"grant_type": "client_credentials", "client_id": made["prefix"], "client_secret": made["secret"]}
    good = await target.send("POST", operation.path, data=client)
    report.judge("client credentials work", good.status_code == 200 or None, good.status_code)
    other = await make(target, (await target.fresh()).access)
    for how, change in {
        "another's id": {"client_id": other["prefix"]},
        "another's secret": {"client_secret": other["secret"]},
        "the account's password": {"client_secret": owner.password},
        "no secret": {"client_secret": ""},
        "the password grant": {"grant_type": "password", "username": owner.email, "password": owner.password},
        "the refresh grant": {"grant_type": "refresh_token", "refresh_token": owner.refresh},
        "a wider scope": {"scope": "users:write roles:write"},
        "every scope": {"scope": "*"},
    }.items():
        answer = await target.send("POST", operation.path, data=client | change)
        report.judge(f"client credentials with {how}", not answer.is_success or None, answer.status_code)
        if answer.is_success:
            token = answer.json()["access_token"]
            read = await target.call("GET", "/users", token=token)
            report.judge(f"what client credentials with {how} may do", read.status_code in (401, 403), read.status_code)
    if good.status_code == 200:
        token = good.json()["access_token"]
        again = await target.send("POST", operation.path, data=client | {"client_secret": token})
        report.judge("a token as a client's secret", not again.is_success, again.status_code)
        await target.call("DELETE", f"/api-keys/{made['id']}", token=owner.access)
        for process in range(len(target.urls)):
            for what, headers in (
                ("token of a", {"Authorization": f"Bearer {token}"}),
                ("", {"X-API-Key": made["secret"]}),
            ):
                status = await _read(target, headers, process=process)
                report.judge(f"{what or 'the'} revoked key, at the next request", status == 401, status)


async def _ended(target: Target, report: Report) -> None:
    """A key ends with its owner's account, and loses what its owner loses, at the next request of every process."""
    admin = await target.admin_token()
    for how, method, body in (("disabled", "PATCH", {"status_id": 2}), ("deleted", "DELETE", None)):
        owner = await target.fresh()
        key = (await make(target, owner.access))["secret"]
        status = await _read(target, {"X-API-Key": key})
        report.judge(f"a key whose owner is not yet {how} works", status != 401, status)
        await target.call(method, f"/users/{owner.id}", token=admin, **({"json": body} if body else {}))
        for process in range(len(target.urls)):
            status = await _read(target, {"X-API-Key": key}, process=process)
            report.judge(f"a key whose owner was {how}", status in (401, 403), status)
    holder, role = await holding(target, "users:read")
    key = (await make(target, holder.access, scopes=["users:read"]))["secret"]
    path = target.path("/users")
    before = await target.send("GET", path, headers={"X-API-Key": key})
    report.judge("a key with a scope of its owner's works", before.status_code == 200, before.status_code)
    await target.call("DELETE", f"/users/{holder.id}/roles/{role['name']}", token=admin)
    for process in range(len(target.urls)):
        after = await target.send("GET", path, headers={"X-API-Key": key}, process=process)
        report.judge("a key whose owner lost the permission", after.status_code in (401, 403), after.status_code)
    await _rotated(target, report)


async def _rotated(target: Target, report: Report) -> None:
    owner = await target.fresh()
    made = await make(target, owner.access)
    await _read(target, {"X-API-Key": made["secret"]})
    path = f"/api-keys/{made['id']}/rotate"
    if target.document.find("POST", "/api-keys/{api_key_id}/rotate") is None:
        return
    answer = await target.call("POST", path, json={"overlap_seconds": 0}, token=owner.access)
    report.judge("a key is rotated", answer.is_success or None, answer.status_code)
    for process in range(len(target.urls)):
        status = await _read(target, {"X-API-Key": made["secret"]}, process=process)
        report.judge("the secret before a rotation without overlap", status == 401, status)
