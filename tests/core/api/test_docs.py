"""The description of the service: complete, offline, and not in production."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI

from app.core.api import ConfigurableRateLimiter
from tests.core.api.conftest import Serve, make_app
from tests.core.api.test_errors import check
from tests.core.api.test_middlewares import GOOD_SECRET


@pytest.fixture
async def http(serve: Serve) -> httpx.AsyncClient:
    return await serve()


class TestPage:
    async def test_everything_it_loads_is_served_here(self, http: httpx.AsyncClient) -> None:
        page = await http.get("/docs")
        assert page.status_code == 200
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(loaded) == 3
        for reference in loaded:
            asset = await http.get(reference)
            assert reference.startswith("/docs/")
            assert (asset.status_code, len(asset.content) > 500) == (200, True)
        assert "://" not in page.text

    async def test_its_policy_lets_its_own_script_run(self, http: httpx.AsyncClient) -> None:
        policy = (await http.get("/docs")).headers["content-security-policy"]
        assert "script-src 'self' 'sha256-" in policy
        assert "script-src 'unsafe-inline'" not in policy

    @pytest.mark.parametrize("asset", ["__init__.py", "..%2Fmain.py", "nothing.js"])
    async def test_nothing_else_is_served(self, http: httpx.AsyncClient, asset: str) -> None:
        answer = await http.get(f"/docs/{asset}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    @pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/swagger-ui.css", "/redoc"])
    async def test_production_serves_none_of_it(self, serve: Serve, path: str) -> None:
        http = await serve(ENVIRONMENT="production", SECRET_KEY=GOOD_SECRET)
        check(await http.get(path), 404, "not_found")

    async def test_staging_does(self, serve: Serve) -> None:
        http = await serve(ENVIRONMENT="staging", SECRET_KEY=GOOD_SECRET)
        assert (await http.get("/docs")).status_code == 200


def operations(app: FastAPI) -> Iterator[dict[str, Any]]:
    for path in app.openapi()["paths"].values():
        yield from path.values()


class TestDocument:
    async def test_every_operation_says_how_it_fails(self, app: FastAPI) -> None:
        for operation in operations(app):
            assert operation["responses"]["default"] == {"$ref": "#/components/responses/Problem"}
            if "security" in operation:
                assert {"401", "403"} <= set(operation["responses"])

    async def test_problems_are_described_as_they_are_sent(self, app: FastAPI) -> None:
        components = app.openapi()["components"]
        assert not {"HTTPValidationError", "ValidationError"} & set(components["schemas"])
        described = components["responses"]["Problem422"]["content"]["application/problem+json"]["schema"]
        assert described == {"$ref": "#/components/schemas/InputProblem"}
        assert set(components["schemas"]["InputProblem"]["properties"]) == {
            "type", "title", "status", "detail", "instance", "code", "request_id", "errors",
        }  # fmt: skip

    async def test_every_reference_leads_somewhere(self, app: FastAPI) -> None:
        document = app.openapi()
        for kind, name in set(re.findall(r"#/components/(\w+)/([\w.-]+)", str(document))):
            assert name in document["components"][kind]

    async def test_operation_ids_are_unique(self, app: FastAPI) -> None:
        ids = [operation["operationId"] for operation in operations(app)]
        assert len(ids) == len(set(ids))
        assert "health_live" in ids

    async def test_limited_operations_say_so(self, app: FastAPI) -> None:
        router = APIRouter(prefix="/t", dependencies=[Depends(ConfigurableRateLimiter())])

        @router.get("/limited")
        async def limited() -> None: ...

        paths = make_app(router).openapi()["paths"]
        assert "429" in paths["/t/limited"]["get"]["responses"]
        assert "429" not in paths["/health/live"]["get"]["responses"]

    async def test_it_is_made_once_and_again_when_routes_are_added(self, app: FastAPI) -> None:
        application = make_app()
        first = application.openapi()
        assert application.openapi() is first
        application.add_api_route("/late", lambda: None)
        assert "default" in application.openapi()["paths"]["/late"]["get"]["responses"]
