"""Mass assignment: fields that a request does not have, by every name that some answer or table has."""

from typing import Any

import httpx

from tests.attacks.document import Operation
from tests.attacks.report import Report
from tests.attacks.target import Account, Target, query_of

PRIVILEGED = (
    *("is_superuser", "is_admin", "admin", "role", "roles", "role_id", "permissions", "scopes", "scope", "status_id"),
    *("id", "user_id", "owner_id", "is_verified", "is_active", "email_key", "username_key", "password_hash"),
    *(
        "security_stamp",
        "deleted_at",
        "created_at",
        "updated_at",
        "password_change_required",
        "tenant_id",
        "_sa_instance_state",
    ),
    *("__class__", "__proto__", "constructor", "session_id", "expires_at", "revoked_at", "last_used_at", "key_hash"),
)
_FEW = ("is_superuser", "roles", "permissions", "id", "status_id", "is_verified", "password_hash", "security_stamp")
_SENTINEL = 424242
_MARK = "attack-mark"


async def attack(target: Target, report: Report) -> None:
    """Send each operation a body that fits and one field more; see what came of it."""
    names = sorted(set(PRIVILEGED) | target.document.answer_fields)
    for operation in target.document.operations:
        for kind, schema in operation.bodies.items():
            target.visit()
            unknown = [one for one in names if one not in operation.fields(schema)]
            if not target.full and schema.get("additionalProperties") is False:
                unknown = [one for one in unknown if one in _FEW]  # one check refuses them all
            await _operation(target, report, operation, kind, unknown)


async def _operation(target: Target, report: Report, operation: Operation, kind: str, names: list[str]) -> None:
    account = await target.spare() if operation.secured else None
    before = await _forbidden(target, account) if account else set()
    for name in names:
        for value in _values(name):
            answer = await _sent(target, operation, kind, {name: value}, account)
            case = f"{operation} with {name}={value!r}"
            if answer.status_code == 429:
                report.judge(case, None, "rate limited")
            elif not answer.is_success:
                report.judge(case, True)
            else:
                applied = await _applied(target, operation, answer, name, value, account)
                report.judge(case, not applied, applied)
    if account and before:
        gained = before - await _forbidden(target, account)
        report.judge(f"rights after {operation}", not gained, f"now allowed: {', '.join(sorted(gained))}")


def _values(name: str) -> tuple[Any, ...]:
    if name.startswith(("is_", "can_", "has_")) or name in ("admin", "password_change_required"):
        return (True,)
    if name in ("roles", "permissions", "scopes"):
        return (["admin"],)
    return (_SENTINEL,) if name.endswith("id") else (_MARK,)


async def _sent(
    target: Target, operation: Operation, kind: str, more: dict[str, Any], account: Account | None
) -> httpx.Response:
    body = operation.example(kind)
    if account and "current_password" in operation.fields(operation.bodies[kind]):
        body["current_password"] = account.password
    arguments: dict[str, Any] = {kind: body | more}
    ids = {one: account.id for one in operation.placeholders if account}
    path = await target.filled(operation, ids)
    token = account.access if account else None
    return await target.send(operation.method, path, params=query_of(operation), token=token, **arguments)


async def _applied(
    target: Target, operation: Operation, answer: httpx.Response, name: str, value: Any, account: Account | None
) -> str:
    """What shows that the field was taken, "" if nothing does: the answer, or what is read again."""
    if _holds(answer, name, value):
        return f"accepted ({answer.status_code}), and the answer has it"
    if account and operation.method in ("PUT", "PATCH"):
        reading = target.document.find("GET", operation.path.removeprefix(target.document.prefix))
        if reading:
            path = await target.filled(reading, dict.fromkeys(reading.placeholders, account.id))
            if _holds(await target.send("GET", path, token=account.access), name, value):
                return f"accepted ({answer.status_code}), and read again it is there"
    return ""


def _holds(answer: httpx.Response, name: str, value: Any) -> bool:
    try:
        content = answer.json()
    except ValueError:
        return False
    data = content.get("data", content) if isinstance(content, dict) else content
    # True may have been there before: only what is new shows anything.
    return isinstance(data, dict) and name in data and data[name] == value


async def _forbidden(target: Target, account: Account) -> set[str]:
    """The lists and the like that the account may not read."""
    found = set()
    for operation in target.document.operations:
        if operation.method == "GET" and operation.secured and not operation.placeholders:
            answer = await target.send("GET", operation.path, params=query_of(operation), token=account.access)
            if answer.status_code == 403:
                found.add(str(operation))
    return found
