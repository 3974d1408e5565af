"""Everything this module serves."""

from fastapi import APIRouter

from app.auth.routes.v1 import auth, profile, sessions, users

router_v1 = APIRouter()
for router in (auth.router, sessions.router, profile.router, users.router):
    router_v1.include_router(router)
