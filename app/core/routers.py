"""The routers of every installed module, in load order."""

from fastapi import APIRouter

from app.core.exceptions import ConfigError
from app.core.modules import parts

routers_v1: list[APIRouter] = []
routers_v2: list[APIRouter] = []
for part in parts("routers"):
    found = {name: getattr(part, name, None) for name in ("router_v1", "router_v2", "register")}
    if not any(found.values()):
        raise ConfigError(f"{part.__name__} defines neither router_v1, router_v2 nor register(app)")
    for name, routers in (("router_v1", routers_v1), ("router_v2", routers_v2)):
        if (router := found[name]) is None:
            continue
        if not isinstance(router, APIRouter):
            raise ConfigError(f"{part.__name__}.{name} is no router: {name} = APIRouter()")
        routers.append(router)

router_v1 = APIRouter()
"""All of the first version in one, for another application; ours includes each, which is faster."""
for router in routers_v1:
    router_v1.include_router(router)
