"""Roles: who holds one permission gets no other, and takes over nobody who holds more."""

from typing import Any

import httpx

from tests.attacks.document import Operation, new_address, new_name, new_password
from tests.attacks.report import Report
from tests.attacks.target import Account, Target, Unavailable, query_of

_REFUSED = (401, 403, 404)


async def attack(target: Target, report: Report) -> None:
    """An account for each permission of the document; then what an administrator of accounts might try."""
    if target.document.find("POST", "/roles") is None:
        raise Unavailable("the target has no roles")
    operations = [one for one in target.document.operations if one.secured]
    permissions = sorted({name for one in operations for name in one.permissions})
    for permission in permissions:
        holder, role = await holding(target, permission)
        for operation in operations:
            if operation.permissions and permission not in operation.permissions:
                answer = await _sent(target, operation, holder.access, holder.id)
                refused = answer.status_code in _REFUSED or _own(operation, answer)
                told = f"answered {answer.status_code}"
                report.judge(f"{operation} with {permission} alone", refused or _later(answer), told)
        await _narrowed(target, report, permission, holder)
        await _escalation(target, report, holder, role, permission)
    await _administrator(target, report, permissions)
    await _last_administrator(target, report)


def _later(answer: httpx.Response) -> bool | None:
    return None if answer.status_code in (429, 503) else False


def _own(operation: Operation, answer: httpx.Response) -> bool:
    """Everybody may read what is their own."""
    return operation.method == "GET" and bool(operation.placeholders) and answer.status_code == 200


async def holding(target: Target, *permissions: str) -> tuple[Account, dict[str, Any]]:
    """An account with a role of these permissions."""
    token = await target.admin_token()
    body = {"name": f"a{new_name()[-10:]}", "description": "attack", "permissions": list(permissions)}
    made = await target.call("POST", "/roles", json=body, token=token)
    if made.status_code != 201:
        raise Unavailable(f"the administrator cannot make a role: {made.status_code} {made.text[:200]}")
    role: dict[str, Any] = made.json()["data"]
    account = await target.fresh()
    target.roles[role["id"]] = grant = f"/users/{account.id}/roles/{role['name']}"
    granted = await target.call("PUT", grant, token=token)
    if not granted.is_success:
        raise Unavailable(f"the administrator cannot grant a role: {granted.status_code}")
    return account, role


async def _sent(target: Target, operation: Operation, token: str, own_id: object) -> httpx.Response:
    kind = next(iter(operation.bodies), None)
    body: dict[str, Any] = {kind: operation.example(kind)} if kind else {}
    path = await target.filled(operation, {"user_id": own_id})
    return await target.send(operation.method, path, params=query_of(operation), token=token, **body)


async def _narrowed(target: Target, report: Report, permission: str, other: Account) -> None:
    """A token of an administrator that was narrowed to one permission has no other."""
    login = target.document.find("POST", "/auth/login")
    if target.admin is None or login is None or "scope" not in login.fields(login.form_body or {}):
        report.note("logins cannot be narrowed by scope")
        return
    operations = [one for one in target.document.operations if one.secured]
    body = {"username": target.admin.email, "password": target.admin.password, "scope": permission}
    answer = await target.call("POST", "/auth/login", data=body)
    if answer.status_code != 200:
        report.judge(f"login narrowed to {permission}", None, f"answered {answer.status_code}")
        return
    tokens = answer.json()
    again = await target.call(
        "POST",
        "/auth/refresh-token",
        json={
            "refresh_token": tokens["refresh_token"],
        },
    )
    for name, token in (("token", tokens["access_token"]), ("refreshed token", again.json().get("access_token", ""))):
        for operation in operations:
            if operation.permissions and permission not in operation.permissions and token:
                answer = await _sent(target, operation, token, other.id)
                refused = answer.status_code in _REFUSED or _own(operation, answer)
                case = f"{operation} with an administrator's {name} for {permission}"
                report.judge(case, refused or _later(answer), f"answered {answer.status_code}")


async def _refused(
    target: Target, report: Report, case: str, method: str, path: str, token: str, body: Any = None
) -> None:
    answer = await target.call(method, path, token=token, **({"json": body} if body is not None else {}))
    held = not answer.is_success
    report.judge(
        case, None if answer.status_code in (429, 503) else held, f"answered {answer.status_code} {answer.text[:100]}"
    )


async def _escalation(target: Target, report: Report, holder: Account, role: dict[str, Any], permission: str) -> None:
    """Nobody gives themselves more: by a role, by a change of their own, or by an account that holds more."""
    admin, mine, who = target.admin, role["id"], f"with {permission}"
    assert admin is not None
    everything = sorted(
        {name for one in target.document.operations for name in one.permissions} | {"users:write", "roles:write"}
    )
    for name in ("admin", role["name"] + "x"):
        await _refused(
            target, report, f"{name} for oneself {who}", "PUT", f"/users/{holder.id}/roles/{name}", holder.access
        )
    for body in ({"permissions": everything}, {"name": "admin"}, {"permissions": ["*"]}):
        await _refused(target, report, f"role changed to {body} {who}", "PATCH", f"/roles/{mine}", holder.access, body)
    made = {"name": f"b{new_name()[-10:]}", "description": "x", "permissions": everything}
    await _refused(target, report, f"a role of everything {who}", "POST", "/roles", holder.access, made)
    victim = f"/users/{admin.id}"
    for change in (
        {"email": new_address()},
        {"username": new_name()},
        {"status_id": 2},
        {"is_verified": False},
        {"is_superuser": False},
    ):
        await _refused(
            target, report, f"administrator changed by {list(change)} {who}", "PATCH", victim, holder.access, change
        )
    await _refused(target, report, f"administrator deleted {who}", "DELETE", victim, holder.access)
    await _refused(
        target, report, f"administrator's role taken {who}", "DELETE", f"{victim}/roles/admin", holder.access
    )
    for change in ({"is_superuser": True},):
        await _refused(
            target, report, f"oneself made administrator {who}", "PATCH", f"/users/{holder.id}", holder.access, change
        )
    account = {"email": new_address(), "username": new_name(), "password": new_password(), "is_superuser": True}
    await _refused(target, report, f"another administrator made {who}", "POST", "/users", holder.access, account)


async def _administrator(target: Target, report: Report, permissions: list[str]) -> None:
    """Who writes accounts and roles cannot reach what they do not hold, nor an account that holds it."""
    own = [one for one in permissions if one.startswith(("users:", "roles:"))]
    others = [one for one in permissions if one not in own]
    if not others:
        report.note("there are no permissions but those of accounts and roles")
        return
    writer, _ = await holding(target, *own)
    holder, role = await holding(target, others[0])
    account, kept = f"/users/{holder.id}", f"/users/{holder.id}/roles/{role['name']}"
    attempts: tuple[tuple[str, str, str, dict[str, Any] | None], ...] = (
        ("another address for them", "PATCH", account, {"email": new_address()}),
        ("disabling them", "PATCH", account, {"status_id": 2}),
        ("deleting them", "DELETE", account, None),
        ("their role for oneself", "PUT", f"/users/{writer.id}/roles/{role['name']}", None),
        ("taking their role", "DELETE", kept, None),
        ("emptying their role", "PATCH", f"/roles/{role['id']}", {"permissions": []}),
        ("a name of their own for it", "PATCH", f"/roles/{role['id']}", {"name": f"c{new_name()[-10:]}"}),
    )
    for what, method, path, body in attempts:
        await _refused(target, report, f"{what}, who hold {others[0]}", method, path, writer.access, body)
    await _at_once(target, report, others[0], holder, kept)


async def _at_once(target: Target, report: Report, permission: str, holder: Account, grant: str) -> None:
    """A role counts, and counts no longer, at the next request of every process."""
    reading = (one for one in target.document.operations if one.method == "GET" and not one.placeholders)
    operation = next((one for one in reading if one.permissions == {permission}), None)
    if operation is None:
        return
    for method, expected in (("DELETE", 403), ("PUT", 200)):
        await target.call(method, grant, token=await target.admin_token())
        for process in range(len(target.urls)):
            answer = await target.send("GET", operation.path, token=holder.access, process=process)
            case = f"{operation} after {method} of the role, at the next request"
            report.judge(case, answer.status_code == expected or _later(answer), answer.status_code)


async def _last_administrator(target: Target, report: Report) -> None:
    """The only administrator cannot be lost by their own hand."""
    admin = target.admin
    if admin is None or admin.id is None or target.inside is None:
        return  # elsewhere there are others, or it would be no attempt but the deed
    token = await target.admin_token()
    path = f"/users/{admin.id}"
    for change in ({"is_superuser": False}, {"status_id": 2}):
        await _refused(target, report, f"the last administrator changed by {change}", "PATCH", path, token, change)
    await _refused(target, report, "the last administrator's role taken", "DELETE", f"{path}/roles/admin", token)
    await _refused(target, report, "the last administrator deleted", "DELETE", path, token)
    await _refused(
        target, report, "their own account deleted", "DELETE", "/profile", token, {"current_password": admin.password}
    )
    alive = await target.call("GET", "/users", token=await target.admin_token())
    report.judge("the administrator still is one", alive.status_code == 200, alive.status_code)
