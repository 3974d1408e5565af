"""Routes of this module."""

from fastapi import APIRouter, FastAPI

from app.auth.routes import keys
from app.auth.routes.v1 import auth, profile, users

router_v1 = APIRouter()
for router in (auth.router, profile.sessions, profile.router, users.router):
    router_v1.include_router(router)


def register(app: FastAPI) -> None:
    """Add the routes outside the API."""
    app.include_router(keys.router)
