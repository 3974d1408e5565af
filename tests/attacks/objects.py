"""Objects of others: every route with an id or a permission, as another user, another role and as nobody."""

import json
import re
from collections import defaultdict
from typing import Any, TypeAlias

import httpx

from tests.attacks.document import Operation
from tests.attacks.report import Report
from tests.attacks.target import Account, Target, Unavailable, query_of

Objects: TypeAlias = dict[str, dict[str, dict[str, Any]]]
"""Items by path of their list and by id."""
_KEYS = ("id", "uuid", "slug", "name", "key")
_ABSENT = 2**40
_REFERENCE = re.compile(r"^(owner|user|account|author|member|customer|tenant)_id$")


async def attack(target: Target, report: Report) -> None:
    """Try the objects of one user as another, those of the administrator as a user."""
    owner, other = await target.fresh(), await target.fresh()
    await target.again(owner)  # a second session, which can be ended without ending ours
    await create(target, owner)
    if target.admin:
        await target.admin_token()
        await create(target, target.admin)
    if target.inside:
        await target.inside.settle()  # what the audit log has of all that
    await _permissions(target, report, other)
    seen = await visible(target, other.access)
    seen.setdefault(target.path("/users"), {})[str(other.id)] = {}
    for name, token in await _owners(target, report, owner):
        objects = await visible(target, token)
        for operation in target.document.operations:
            if operation.secured and operation.placeholders:
                await _operation(target, report, operation, name, _only(objects, seen), other)
        await _references(target, report, name, objects, other)
    await _unchanged(target, report, owner)


async def _references(target: Target, report: Report, owner: str, objects: Objects, other: Account) -> None:
    """Ids of others as query parameters and in bodies: `owner_id`, `user_id` and the like."""
    accounts = _profile_ids(objects, target, target.path("/users"))
    for value in accounts[:1]:
        for operation in target.document.operations:
            if not operation.secured or operation.placeholders:
                continue
            for parameter in operation.parameters("query"):
                if _REFERENCE.search(parameter["name"]):
                    query = query_of(operation) | {parameter["name"]: value}
                    answer = await target.send(operation.method, operation.path, params=query, token=other.access)
                    shown = {str(_key(item)) for item in _items(answer)} & set(objects.get(operation.path, {}))
                    case = f"{operation} with {parameter['name']} of {owner}"
                    report.judge(case, not shown, f"answered {answer.status_code} with {shown}")
            for kind, schema in operation.bodies.items():
                for field in filter(_REFERENCE.search, operation.fields(schema)):
                    body: dict[str, Any] = {kind: operation.example(kind) | {field: int(value)}}
                    answer = await target.send(operation.method, operation.path, token=other.access, **body)
                    case = f"{operation} with {field} of {owner}"
                    report.judge(case, not answer.is_success, f"answered {answer.status_code}")


async def _owners(target: Target, report: Report, owner: Account) -> list[tuple[str, str]]:
    found = [("another user", owner.access)]
    try:
        found.append(("the administrator", await target.admin_token()))
    except Unavailable as missing:
        report.judge("objects of the administrator", None, missing)
    return found


async def create(target: Target, owner: Account) -> None:
    """Have the owner make one object wherever a collection takes one of everybody."""
    for operation in target.document.operations:
        is_collection = any(one.path.startswith(f"{operation.path}/{{") for one in target.document.operations)
        is_anybodys = operation.secured and not operation.permissions and not operation.placeholders
        if operation.method == "POST" and is_anybodys and is_collection:
            await _sent(target, operation, {}, owner)


async def visible(target: Target, token: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The objects that a caller's lists show, by path of the list and by id."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for operation in target.document.operations:
        if operation.method == "GET" and operation.secured and not operation.placeholders:
            answer = await target.send("GET", operation.path, params=query_of(operation), token=token)
            items = _items(answer)
            if items:
                found[operation.path] = {str(value): item for item in items if (value := _key(item)) is not None}
    return found


def _items(answer: httpx.Response) -> list[dict[str, Any]]:
    if answer.status_code != 200:
        return []
    try:
        content = answer.json()
    except ValueError:
        return []
    data = content
    if isinstance(content, dict):
        data = next((content[name] for name in ("data", "items", "results") if name in content), content)
    rows = data if isinstance(data, list) else [data]
    return [one for one in rows if isinstance(one, dict)]


def _key(item: dict[str, Any]) -> object:
    return next((item[name] for name in _KEYS if isinstance(item.get(name), int | str)), None)


def _only(objects: Objects, seen: Objects) -> Objects:
    """Those that the other does not see."""
    return {
        path: {key: item for key, item in items.items() if key not in seen.get(path, {})}
        for path, items in objects.items()
    }


def collection_of(path: str, placeholder: str) -> str:
    """The list that a placeholder is of: what stands before it."""
    return path.split("/{" + placeholder + "}", maxsplit=1)[0]


async def _operation(
    target: Target, report: Report, operation: Operation, owner: str, objects: Objects, other: Account
) -> None:
    ids: dict[str, list[str]] = defaultdict(list)
    for name in operation.placeholders:
        collection = collection_of(operation.path, name)
        ids[name] = (
            list(objects.get(collection, {}))[:3]
            or _profile_ids(objects, target, collection)
            or _named_alike(objects, collection, name)
        )
    if not all(ids[name] for name in operation.placeholders):
        report.note(f"no objects of {owner} for {operation}")
        return
    for number in range(max(len(one) for one in ids.values())):
        chosen = {name: one[number % len(one)] for name, one in ids.items()}
        answer = await _sent(target, operation, chosen, other)
        case = f"{operation} with {chosen} of {owner}"
        if answer.status_code in (429, 503):
            report.judge(case, None, answer.status_code)
            continue
        report.judge(case, not answer.is_success and answer.status_code < 500, f"answered {answer.status_code}")
        last = operation.placeholders[-1]
        absent = await _sent(target, operation, chosen | {last: _absent(chosen[last])}, other)
        same = (answer.status_code, _code(answer)) == (absent.status_code, _code(absent))
        told = f"{answer.status_code} {_code(answer)}, where there is none {absent.status_code} {_code(absent)}"
        report.judge(f"{operation} tells whether an object of {owner} exists", same, told)


def _profile_ids(objects: Objects, target: Target, collection: str) -> list[str]:
    """An owner who may not list accounts has one, which the profile tells."""
    if collection != target.path("/users"):
        return []
    return list(objects.get(target.path("/profile"), {}))


def _named_alike(objects: Objects, collection: str, placeholder: str) -> list[str]:
    """The list of an object's parts, as `/users/{id}/roles`, is shown elsewhere too: as `/roles`."""
    last = collection.rpartition("/")[2]
    rows = [item for path, items in objects.items() if path.endswith(f"/{last}") for item in items.values()]
    return [str(item[placeholder]) for item in rows if placeholder in item][:3]


def _absent(value: str) -> str:
    return str(_ABSENT) if value.isdecimal() else "no-such-object"


def _code(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("code", ""))
    except (ValueError, AttributeError):
        return ""


async def _sent(target: Target, operation: Operation, ids: dict[str, str], account: Account) -> httpx.Response:
    kind = next(iter(operation.bodies), None)
    body: dict[str, Any] = {}
    if kind:
        content = operation.example(kind)
        if "current_password" in operation.fields(operation.bodies[kind]):
            content["current_password"] = account.password
        body = {kind: content}
    path = await target.filled(operation, ids)
    return await target.send(operation.method, path, params=query_of(operation), token=account.access, **body)


async def _permissions(target: Target, report: Report, other: Account) -> None:
    """What asks for a permission is refused to who has none, and what an administrator alone is shown is no user's."""
    for operation in target.document.operations:
        if operation.secured and operation.permissions:
            answer = await _sent(target, operation, {}, other)
            case = f"{operation} without {', '.join(sorted(operation.permissions))}"
            held = answer.status_code in (401, 403, 404)
            report.judge(
                case, held or (None if answer.status_code in (429, 503) else False), f"answered {answer.status_code}"
            )


async def _unchanged(target: Target, report: Report, owner: Account) -> None:
    """After all that the owner's account is as it was."""
    answer = await target.call("GET", "/profile", token=owner.access)
    same = answer.status_code == 200 and json.loads(answer.text)["data"]["username"] == owner.username
    report.judge("the owner's account is as it was", same, answer.status_code)
