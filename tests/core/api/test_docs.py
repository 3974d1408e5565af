"""The description of the service: complete, offline, and not in production."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi import Response as HTTPResponse
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, ValidationError, create_model

from app.core.api import ConfigurableRateLimiter, PaginatedResponse, Response
from app.core.api.openapi import DocumentedAPI
from app.core.api.problems import title_of
from app.core.configs import AppConfig
from app.core.db import PaginatedResult
from app.core.exceptions import ConfigError
from tests.core.api.asgi import Exchange
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


class TestIndex:
    async def test_it_says_what_this_is_and_where_to_go(self, serve: Serve) -> None:
        links = {"api": "/api/v1", "health": "/health", "docs": "/docs", "openapi": "/openapi.json"}
        http = await serve(PROJECT_NAME="Shop")
        assert (await http.get("/")).json() == {"name": "Shop", "version": "1", **links}
        for path in ("/health", "/docs", "/openapi.json"):
            assert (await http.get(path)).status_code != 404

    async def test_below_a_sub_path_and_without_docs(self, serve: Serve) -> None:
        http = await serve(ENVIRONMENT="production", SECRET_KEY=GOOD_SECRET, ROOT_PATH="/svc")
        assert set((await http.get("/")).json().items()) >= {("api", "/svc/api/v1"), ("health", "/svc/health")}
        assert "docs" not in (await http.get("/")).json()


class TestSubPath:
    @pytest.fixture(params=["", "/svc"], ids=["stripped by the proxy", "kept"])
    async def below(self, request: pytest.FixtureRequest, serve: Serve) -> httpx.AsyncClient:
        """A client that asks as the proxy passes on."""
        return await serve(router, base_url=f"http://test{request.param}", ROOT_PATH="/svc")

    async def test_the_document_tells_where_the_service_stands(self, below: httpx.AsyncClient, app: FastAPI) -> None:
        document = (await below.get("/openapi.json")).json()
        assert document["servers"] == [{"url": "/svc"}]
        scheme = document["components"]["securitySchemes"]["OAuth2PasswordBearer"]
        # Read as RFC 3986 5.2 has it, against the server or the document, a path of its own is what leads there.
        for base in ("http://test/svc", "http://test/svc/", "http://test/svc/openapi.json"):
            assert urljoin(base, scheme["flows"]["password"]["tokenUrl"]) == "http://test/svc/api/v1/auth/login"
        assert "servers" not in app.openapi()
        assert "/svc" not in str(app.openapi()["components"]["securitySchemes"])

    async def test_every_address_has_it(self, below: httpx.AsyncClient) -> None:
        page = await below.get("/docs")
        assert all(link.startswith("/svc/docs/") for link in re.findall(r'(?:src|href)="([^"]+)"', page.text))
        assert "url: '/svc/openapi.json'" in page.text
        assert (await below.get("/nowhere")).json()["instance"] == "/svc/nowhere"
        answer = await below.get("/sub/page")
        assert answer.headers["link"].startswith('</svc/sub/page?page=1>; rel="first"')

    async def test_a_server_may_say_it_too(self, app: FastAPI) -> None:
        exchange = Exchange("/svc/openapi.json")
        exchange.scope["root_path"] = "/svc"  # as `uvicorn --root-path /svc` does
        await exchange.run(make_app())
        assert b'"tokenUrl":"/svc/api/v1/auth/login"' in exchange.body

    @pytest.mark.parametrize("path", ["svc", "/svc/", "/", "/a b", "http://a.test/svc"])
    def test_what_is_no_path_is_refused(self, path: str) -> None:
        with pytest.raises(ValidationError, match="ROOT_PATH"):
            AppConfig(ROOT_PATH=path)


router = APIRouter(prefix="/sub")


@router.get("/page")
async def page(request: Request, response: HTTPResponse) -> PaginatedResponse[int]:
    return PaginatedResponse[int].of(PaginatedResult(items=[1], total=1, page=1, per_page=1), request, response)


def schema(module: str, name: str = "Order") -> type[BaseModel]:
    return create_model(name, __module__=module, number=(int, 1))


class TestSchemaNames:
    def names(self, *answers: Any, modules: dict[str, str] | None = None) -> set[str]:
        web = DocumentedAPI()
        web.modules = {"app.shop": "shop", "app.shop_reviews": "shop_reviews"} if modules is None else modules
        for number, answer in enumerate(answers):
            web.add_api_route(f"/{number}", lambda: None, response_model=answer, name=f"get{number}")
        return set(web.openapi()["components"]["schemas"]) - {"Problem", "InputProblem", "Fault"}

    async def test_they_carry_their_module(self, app: FastAPI) -> None:
        order, other = schema("app.shop.schemas"), schema("app.shop_reviews.schemas.v1")
        alone = self.names(Response[order])  # type: ignore[valid-type]  # known when it runs only
        both = self.names(Response[order], Response[other])  # type: ignore[valid-type]
        assert alone == {"ShopOrder", "ResponseOfShopOrder"}
        assert both == alone | {"ShopReviewsOrder", "ResponseOfShopReviewsOrder"}

    async def test_readable_whatever_they_are_made_of(self, app: FastAPI) -> None:
        order, cart = schema("app.shop.schemas"), schema("app.shop.models", "ShopCart")
        made = (Response[order | None], Response[list[cart]], PaginatedResponse[order], Response[dict[str, cart]])  # type: ignore[valid-type]
        assert self.names(*made) - {"Pagination", "CursorPagination", "PageMeta"} == {
            "ShopOrder",
            "ShopCart",
            "ResponseOfShopOrderOrNone",
            "ResponseOfListOfShopCart",
            "PaginatedResponseOfShopOrder",
            "ResponseOfDictOfStrAndShopCart",
        }

    async def test_the_titles_are_the_same(self, app: FastAPI) -> None:
        for name, found in app.openapi()["components"]["schemas"].items():
            assert found.get("title", name) == name
            assert re.fullmatch("[A-Z][A-Za-z0-9]*", name)

    async def test_two_of_one_name_are_refused(self, app: FastAPI) -> None:
        both = (schema("app.shop.v1"), schema("app.shop.v2"))
        with pytest.raises(
            ConfigError, match=r"app\.shop\.v1\.Order and app\.shop\.v2\.Order .* ShopOrder: rename one"
        ):
            self.names(*both)
        assert self.names(schema("app.shop.v1")) == {"ShopOrder"}  # and nothing is left of it


class TestDocument:
    async def test_every_error_has_an_example_of_its_own(self, app: FastAPI) -> None:
        document = app.openapi()
        for name, answer in document["components"]["responses"].items():
            [content] = answer["content"].values()
            status = int(name.removeprefix("Problem") or 503)
            assert (content["example"]["status"], content["example"]["title"]) == (status, title_of(status))
            assert content["example"]["type"].endswith(content["example"]["code"])
            kind = content["schema"]["$ref"].rpartition("/")[2]
            required = document["components"]["schemas"][kind]["required"]
            assert set(required) == set(content["example"])
        assert "404" not in str(document["components"]["schemas"])

    async def test_everything_is_described(self, app: FastAPI) -> None:
        assert "RFC 9457" in app.openapi()["info"]["description"]
        assert all(operation["description"] for operation in operations(app))

    async def test_what_a_route_declares_wins(self, app: FastAPI) -> None:
        own = {"description": "Mine"}
        declaring = APIRouter(prefix="/t", dependencies=[Depends(OAuth2PasswordBearer("/x"))])

        @declaring.post("/{item}", responses={401: own, 404: own, 409: own, 422: own, "default": own})
        async def declared(item: int) -> None: ...

        answers = make_app(declaring).openapi()["paths"]["/t/{item}"]["post"]["responses"]
        assert {status: answers[status] for status in ("401", "404", "409", "422", "default")} == dict.fromkeys(
            ("401", "404", "409", "422", "default"), own
        )
        assert answers["403"] == {"$ref": "#/components/responses/Problem403"}

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
