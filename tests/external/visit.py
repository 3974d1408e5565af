"""Makes requests to the application, as a new user who is logged in, and prints the answers as JSON.

A program of its own, as packages are chosen by its settings: `[["GET", "/shop_reviews", null], ...]` is its argument.
"""

import asyncio
import json
import sys
from typing import Any

import httpx

from app.core.runtime import runtime
from app.main import create_app
from tests.factories.async_alchemy_factory import use_session
from tests.factories.user import UserFactory
from tests.utils import login_user


async def visit(requests: list[tuple[str, str, Any]]) -> list[dict[str, Any]]:
    """The answers in order; a body that is no JSON is its text."""
    app = create_app(run_jobs=False)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        runtime().database.session() as db,
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        with use_session(db):
            await login_user(client, await UserFactory.create(username="visitor"))
        return [_said(await client.request(method, path, json=body)) for method, path, body in requests]


def _said(answer: httpx.Response) -> dict[str, Any]:
    kind = answer.headers.get("content-type", "")
    body = answer.json() if kind.endswith("json") else answer.text
    return {"status": answer.status_code, "type": kind, "headers": dict(answer.headers), "body": body}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(visit(json.loads(sys.argv[1])))))
