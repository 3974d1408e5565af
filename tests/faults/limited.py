"""An application with one limited route, for processes of their own."""

from fastapi import APIRouter, Depends

from app.core.api import ConfigurableRateLimiter
from app.main import create_app

router = APIRouter()


@router.get("/limited", dependencies=[Depends(ConfigurableRateLimiter(times=3, seconds=60))])
async def limited() -> str:
    return "served"


app = create_app(run_jobs=False)
app.include_router(router)
