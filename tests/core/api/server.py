"""The real server, in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import uvicorn
from fastapi import APIRouter

from tests.core.api.conftest import make_app


@asynccontextmanager
async def serving(
    http: Literal["h11", "httptools"] | type[asyncio.Protocol], *routers: APIRouter, **settings: Any
) -> AsyncIterator[int]:
    """The port on which the application is served; the suite's own application keeps the runtime open."""
    config = uvicorn.Config(
        make_app(*routers, **settings),
        port=0,
        workers=1,
        http=http,
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(60):
        while not server.started:  # noqa: ASYNC110  uvicorn offers no event
            await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task
