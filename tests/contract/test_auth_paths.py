"""The names of `app.auth` that forks and the kit's family import by their files."""

from importlib import import_module
from typing import get_args

import pytest

import app.auth

PUBLISHED = {
    "app.auth": "ActionNotAllowed ActiveUser AuthGateway CurrentUser OptionalUser UserCreated UserDTO UserDeleted "
    "UserStatus get_gateway router_v1",
    "app.auth.deps": "ActiveUser AuthGateway CurrentUser OptionalUser get_gateway",
    "app.auth.emails.templates": "Welcome",
    "app.auth.events": "UserCreated UserDeleted",
    "app.auth.exceptions": "ActionNotAllowed",
    "app.auth.gateway": "AuthGateway AuthGatewayInterface get_gateway",
    "app.auth.models": "User UserStatus",
    "app.auth.policies": "",
    "app.auth.routes.v1.users": "router",
    "app.auth.schemas.user": "UserDTO UserFilterParam UserListParams UserResponse UserSortParam",
    "app.auth.services.user": "UserService",
}

pytestmark = pytest.mark.once


@pytest.mark.parametrize("path", PUBLISHED)
def test_the_name_is_there(path: str) -> None:
    module = import_module(path)
    assert [name for name in PUBLISHED[path].split() if not hasattr(module, name)] == []


def test_the_gateway_is_a_class_in_its_file_and_a_dependency_elsewhere() -> None:
    gateway = import_module("app.auth.gateway")
    assert issubclass(gateway.AuthGateway, gateway.AuthGatewayInterface)
    assert get_args(app.auth.AuthGateway)[0] is gateway.AuthGatewayInterface


def test_what_is_exported_twice_is_one_thing() -> None:
    for path in ("app.auth.deps", "app.auth.exceptions", "app.auth.models", "app.auth.schemas.user"):
        module = import_module(path)
        for name in set(PUBLISHED[path].split()) & set(app.auth.__all__):
            assert getattr(module, name) is getattr(app.auth, name)
