"""The routers of every installed module, in load order."""

from fastapi import APIRouter

from app.core.modules import parts

routers_v1: list[APIRouter] = [part.router_v1 for part in parts("routers")]
