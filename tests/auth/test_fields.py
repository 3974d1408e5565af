"""Who reads and writes the fields of an account: the table of docs/auth.md, and the schemas of the routes of auth."""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, TypeAlias, get_args

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from app.auth.models import User
from app.auth.schemas.auth import AddressRequest
from app.auth.schemas.user import UserResponse
from app.core.api.routes import ListedRoute, listed_routes
from app.core.configs import PROJECT_ROOT

Table: TypeAlias = dict[str, tuple[set[str], set[str]]]

COLUMNS = {column.name for column in User.__table__.columns}
COMMON = {"id", "created_at", "updated_at"}
"""Fields that rows of every kind have: only a UserResponse has those of an account."""
PASSWORDS = {"password", "new_password"}
WHO = {"public": "guest", "authenticated": "owner"}

_ROW = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \|(.*)\|(.*)\|$", re.MULTILINE)


def documented() -> Table:
    """The rows of the table."""
    text = (PROJECT_ROOT / "docs" / "auth.md").read_text(encoding="utf-8")
    section = text.partition("### Who reads and writes the fields of an account")[2].partition("\n## ")[0]
    found: Table = {}
    for names, *cells in _ROW.findall(section):
        read, written = ({each.strip(" `") for each in cell.split(",")} - {""} for cell in cells)
        found |= dict.fromkeys(re.findall(r"\w+", names), (read, written))
    return found


def models_in(annotation: Any, seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """The models of an annotation, and those of their fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in seen:
        seen.add(annotation)
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_in(field.annotation, seen)
    for argument in get_args(annotation):
        yield from models_in(argument, seen)


def answered(route: ListedRoute) -> set[str]:
    """The fields of an account in the answers of a route."""
    declared = [one.get("model") for one in (route.context.responses or {}).values() if isinstance(one, dict)]
    found: set[str] = set()
    for model in (each for one in (route.context.response_model, *declared) for each in models_in(one, set())):
        found |= {name for name in model.model_fields if name in COLUMNS - COMMON or name in PASSWORDS}
        found |= COMMON if issubclass(model, UserResponse) else set()
    return found


def taken(route: ListedRoute) -> set[str]:
    """The fields of an account that the bodies of a route set."""
    assert route.dependant
    found: set[str] = set()
    for field in route.dependant.body_params:
        for model in models_in(field.field_info.annotation, set()):
            if model is not AddressRequest:  # names an account, changes nothing
                found |= {name for name in model.model_fields if name in COLUMNS | PASSWORDS}
    return {"password_hash" if name in PASSWORDS else name for name in found}


@pytest.mark.once
def test_the_documented_table_is_what_the_schemas_say(app: FastAPI) -> None:
    readers, writers = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for route in listed_routes(app.routes):
        if route.dependant is None or not route.name.startswith("app.auth."):
            continue
        who = {WHO.get(name, name) for name in route.access}
        for name in answered(route):
            readers[name] |= who
        for name in taken(route):
            writers[name] |= who
        if "/users/{user_id}/roles" in route.path:
            (readers if route.methods >= {"GET"} else writers)["roles"] |= who

    assert documented() == {name: (readers[name], writers[name]) for name in {*COLUMNS, "roles"}}
