"""The routers of every installed module, in load order."""

from fastapi import APIRouter

from app.core.exceptions import ConfigError
from app.core.modules import parts

routers_v1: list[APIRouter] = []
for part in parts("routers"):
    if not isinstance(router := getattr(part, "router_v1", None), APIRouter):
        raise ConfigError(f"{part.__name__} defines no router_v1: router_v1 = APIRouter()")
    routers_v1.append(router)
