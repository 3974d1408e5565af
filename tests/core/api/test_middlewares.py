"""The layers around every request: ids, the access line, headers, proxies."""

import asyncio
import gzip
import re
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.security import APIKeyHeader
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from app.core.services.log import conversation_id, logger, request_id
from tests.core.api.asgi import Exchange
from tests.core.api.conftest import Serve, make_app
from tests.core.api.test_errors import check
from tests.core.log.capture import captured_log

GOOD_SECRET = "5f2c8e1b7d3a496083bfae2d61c7905e"

router = APIRouter(prefix="/t")


@router.get("/items/{item_id}")
async def item(item_id: str) -> dict[str, Any]:
    await logger.a_info("inside")
    return {"request_id": request_id(), "conversation_id": conversation_id()}


@router.get("/address")
async def address(request: Request) -> dict[str, str | None]:
    return {"client": request.client.host if request.client else None, "scheme": request.url.scheme}


@router.get("/large")
async def large() -> str:
    return "x" * 5000


@router.get("/kept")
async def kept(kept_as: str, response: Response) -> None:
    response.headers["Cache-Control"] = kept_as


@router.get("/bug")
async def bug() -> None:
    raise RuntimeError


@router.post("/body")
async def body(value: dict[str, Any]) -> dict[str, Any]:
    return value


@router.get("/wait")
async def wait(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@pytest.fixture
async def http(serve: Serve) -> httpx.AsyncClient:
    return await serve(router)


class TestIds:
    async def test_made_where_none_is_given(self, http: httpx.AsyncClient) -> None:
        answers = []
        for _ in range(2):
            answers.append(await http.get("/t/items/1"))
            http.cookies.clear()
        ids = {answer.headers[name] for answer in answers for name in ("x-request-id", "x-conversation-id")}
        assert len(ids) == 4
        for answer in answers:
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
            assert answer.json()["conversation_id"] == answer.headers["x-conversation-id"]

    @pytest.mark.parametrize("given", ["a", "A1._-", "x" * 64])
    async def test_taken_where_well_formed(self, http: httpx.AsyncClient, given: str) -> None:
        answer = await http.get("/t/items/1", headers={"X-Request-ID": given, "X-Conversation-ID": f"{given}"[:60]})
        assert answer.json() == {"request_id": given, "conversation_id": given[:60]}
        assert answer.headers["x-request-id"] == given

    @pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "id;drop", "é", "<script>"])
    async def test_made_where_ill_formed(self, http: httpx.AsyncClient, given: str) -> None:
        answer = await http.get("/t/items/1", headers={b"X-Request-ID": given.encode()})
        assert answer.headers["x-request-id"] != given
        assert len(answer.headers["x-request-id"]) == 32

    async def test_every_line_of_the_request_has_them(self, http: httpx.AsyncClient) -> None:
        with captured_log() as lines:
            answer = await http.get("/t/items/1")
        for event in ("inside", "request"):
            assert lines.one(event)["request_id"] == answer.headers["x-request-id"]
            assert lines.one(event)["conversation_id"] == answer.headers["x-conversation-id"]

    async def test_they_end_with_the_request(self, http: httpx.AsyncClient) -> None:
        await http.get("/t/items/1", headers={"X-Request-ID": "mine"})
        assert request_id() is None
        assert conversation_id() is None


class TestConversationCookie:
    async def test_given_to_who_brings_no_conversation(self, http: httpx.AsyncClient) -> None:
        first = await http.get("/t/items/1")
        cookie = first.headers["set-cookie"]
        assert cookie == f"conversation_id={first.json()['conversation_id']}; Path=/; HttpOnly; SameSite=Lax"
        second = await http.get("/t/items/1")  # the client keeps cookies as a browser does
        assert second.json()["conversation_id"] == first.json()["conversation_id"]
        assert second.json()["request_id"] != first.json()["request_id"]
        assert "set-cookie" not in second.headers

    async def test_the_header_wins_and_sets_none(self, http: httpx.AsyncClient) -> None:
        headers = {"Cookie": "a=b; conversation_id=from-cookie; c=d", "X-Conversation-ID": "from-header"}
        answer = await http.get("/t/items/1", headers=headers)
        assert answer.json()["conversation_id"] == "from-header"
        del headers["X-Conversation-ID"]
        answer = await http.get("/t/items/1", headers=headers)
        assert answer.headers["x-conversation-id"] == "from-cookie"
        assert "set-cookie" not in answer.headers

    @pytest.mark.parametrize("given", ["", "a b", "x" * 65, "<script>", "a%0d%0ab", "ok, no"])
    async def test_an_ill_formed_one_is_replaced(self, http: httpx.AsyncClient, given: str) -> None:
        answer = await http.get("/t/items/1", headers={"Cookie": f"conversation_id={given}"})
        assert len(answer.json()["conversation_id"]) == 32
        assert "set-cookie" in answer.headers

    async def test_none_on_what_caches_share(self, http: httpx.AsyncClient) -> None:
        assert "set-cookie" not in (await http.get("/docs/swagger-ui.css")).headers

    @pytest.mark.parametrize(
        ("kept_as", "given"),
        [
            *(("Public, max-age=60", False), ("max-age=60", False), ("s-maxage=60", False), ("no-cache", False)),
            *(("private, max-age=60", True), ("No-Store", True)),
        ],
    )
    async def test_only_on_what_no_cache_shares(self, http: httpx.AsyncClient, kept_as: str, given: bool) -> None:
        answer = await http.get("/t/kept", params={"kept_as": kept_as})
        assert answer.headers["cache-control"] == kept_as
        assert ("set-cookie" in answer.headers) is given

    async def test_secure_outside_development_and_off_by_a_setting(self, serve: Serve) -> None:
        strict = await serve(router, ENVIRONMENT="production", SECRET_KEY=GOOD_SECRET)
        assert (await strict.get("/t/items/1")).headers["set-cookie"].endswith("; Secure")
        without = await serve(router, CONVERSATION_COOKIE=False)
        answer = await without.get("/t/items/1", headers={"Cookie": "conversation_id=mine"})
        assert "set-cookie" not in answer.headers
        assert answer.json()["conversation_id"] != "mine"


class TestAccessLog:
    @pytest.mark.parametrize(
        ("method", "path", "route", "status"),
        [
            ("GET", "/t/items/secret-1?token=hunter2", "/t/items/{item_id}", 200),
            ("GET", "/health/live", "/health/live", 200),
            ("GET", "/api/v1/users/77", "/api/v1/users/{user_id}", 401),
            ("PUT", "/t/items/secret-1", "/t/items/{item_id}", 405),
            ("GET", "/secret-1/nowhere", None, 404),
            ("GET", "/t/items/1?x=%ff", None, 422),
            ("POST", "/t/body", "/t/body", 422),
            ("GET", "/t/bug", "/t/bug", 500),
        ],
    )
    async def test_one_line_with_the_template(
        self, http: httpx.AsyncClient, db: Any, method: str, path: str, route: str | None, status: int
    ) -> None:
        with captured_log() as lines:
            await http.request(method, path)
        line = lines.one("request")
        assert (line["method"], line["route"], line["status"]) == (method, route, status)
        assert line["client"] == "192.0.2.1"
        assert 0 <= line["duration_ms"] < 5000
        assert "secret-1" not in str(line)
        assert "hunter2" not in str(line)

    async def test_errors_name_their_code(self, http: httpx.AsyncClient) -> None:
        with captured_log() as lines:
            await http.get("/nowhere")
        assert lines.one("request")["code"] == "not_found"

    @pytest.mark.parametrize("path", ["/health/live", "/t/bug", "/t/body", "/t/items/1?x=%ff"])
    async def test_people_too_read_a_number(self, http: httpx.AsyncClient, path: str) -> None:
        with captured_log(LOG_FORMAT="console") as lines:
            status = (await http.get(path)).status_code
        assert re.search(rf"GET \S+ {int(status)} ", lines.text)

    async def test_a_router_included_twice_keeps_its_prefixes_apart(self, app: FastAPI) -> None:
        inner = APIRouter()
        inner.add_api_route("/x/{y}", item)
        application = make_app()
        application.include_router(inner, prefix="/one")
        application.include_router(inner, prefix="/two")
        with captured_log() as lines:
            for path in ("/two/x/1", "/one/x/1"):
                await Exchange(path).run(application)
        assert [line["route"] for line in lines.all("request")] == ["/two/x/{y}", "/one/x/{y}"]

    async def test_a_mounted_application(self, app: FastAPI) -> None:
        async def hello(request: Request) -> PlainTextResponse:
            return PlainTextResponse("hello")

        application = make_app()
        application.router.routes.append(Mount("/other", Starlette(routes=[Route("/hello/{name}", hello)])))
        with captured_log() as lines:
            await Exchange("/other/hello/ann").run(application)
            await Exchange("/other/nowhere/at/all").run(application)
        assert [(line["route"], line["status"]) for line in lines.all("request")] == [
            ("/other/hello/{name}", 200),
            ("/other/{path}", 404),
        ]

    async def test_mounts_in_mounts_below_a_root_path(self, app: FastAPI) -> None:
        inner = FastAPI()
        inner.add_api_route("/items/{item_id}", item)
        application = make_app(ROOT_PATH="/svc")
        application.mount("/tenants/{tenant}", Starlette(routes=[Mount("/shop", inner)]))
        with captured_log() as lines:
            await Exchange("/svc/tenants/acme/shop/items/7").run(application)
        line = lines.one("request")
        assert (line["route"], line["status"]) == ("/tenants/{tenant}/shop/items/{item_id}", 200)

    async def test_a_client_that_leaves_while_it_waits(self, app: FastAPI) -> None:
        application = make_app(router)
        with captured_log() as lines:
            await asyncio.wait_for(Exchange("/t/wait", leaves=True).run(application), 60)
        line = lines.one("request")
        assert (line["route"], line["status"]) == ("/t/wait", 499)

    async def test_a_client_that_leaves_while_it_sends(self, app: FastAPI) -> None:
        half = {"type": "http.request", "body": b'{"a": ', "more_body": True}
        headers = {"content-type": "application/json", "content-length": "100"}
        exchange = Exchange("/t/body", method="POST", headers=headers, sent=[half], leaves=True)
        application = make_app(router)
        with captured_log() as lines:
            await exchange.run(application)
        assert lines.one("request")["status"] == 499

    async def test_a_request_that_is_cancelled(self, app: FastAPI) -> None:
        application = make_app(router)
        with captured_log() as lines:
            task = asyncio.create_task(Exchange("/t/wait").run(application))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert lines.one("request")["status"] == 499


class TestSecurityHeaders:
    async def test_on_every_answer(self, http: httpx.AsyncClient) -> None:
        for path in ("/health/live", "/nowhere", "/t/bug"):
            headers = (await http.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert headers["cache-control"] == "no-store"

    async def test_an_answer_keeps_its_own(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/docs/swagger-ui.css")
        assert answer.headers.get_list("cache-control") == ["public, max-age=86400"]

    async def test_a_mount_may_load_its_own_files_and_have_its_own_policy(self, app: FastAPI) -> None:
        async def page(request: Request) -> PlainTextResponse:
            own = {"Content-Security-Policy": "default-src *"} if request.url.path.endswith("/own") else None
            return PlainTextResponse("page", headers=own)

        application = make_app(router)
        panel = Starlette(routes=[Route("/{name}", page)])
        application.mount("/admin", panel)
        application.mount("/admin2", panel)
        application.state.content_policies["/admin"] = "default-src 'self' 'unsafe-inline'"
        policies = {}
        for path in ("/admin/a", "/admin2/a", "/admin/own", "/t/items/1", "/admin/a/b"):
            exchange = Exchange(path)
            await exchange.run(application)
            policies[path] = exchange.headers["content-security-policy"]
        assert policies["/admin/a"] == policies["/admin/a/b"] == "default-src 'self' 'unsafe-inline'"
        assert policies["/admin2/a"].startswith("default-src 'self'; style-src 'self' 'unsafe-inline';")
        assert policies["/admin/own"] == "default-src *"
        assert policies["/t/items/1"] == "default-src 'none'; frame-ancestors 'none'"

    async def test_https_is_demanded_outside_development_only(self, serve: Serve, http: httpx.AsyncClient) -> None:
        strict = await serve(ENVIRONMENT="production", SECRET_KEY=GOOD_SECRET)
        assert "strict-transport-security" not in (await http.get("/health/live")).headers
        assert (await strict.get("/health/live")).headers["strict-transport-security"] == "max-age=31536000"


class TestCors:
    async def test_listed_origins_may_read_answers_and_their_headers(self, serve: Serve) -> None:
        http = await serve(BACKEND_CORS_ORIGINS=["http://a.test/"])
        answer = await http.get("/health/live", headers={"Origin": "http://a.test"})
        assert answer.headers["access-control-allow-origin"] == "http://a.test"
        assert "X-Total-Count" in answer.headers["access-control-expose-headers"]

    async def test_a_preflight_lets_tokens_pass(self, serve: Serve) -> None:
        http = await serve(BACKEND_CORS_ORIGINS=["http://a.test"])
        asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization"}
        answer = await http.options("/t/items/1", headers={"Origin": "http://a.test", **asked})
        assert answer.status_code == 200
        assert "Authorization" in answer.headers["access-control-allow-headers"]

    @pytest.mark.parametrize(
        "header", ["if-none-match", "x-tenant", "x-api-key", "x-request-id", "x-other", "content-type, X-Inner"]
    )
    async def test_declared_headers_may_be_sent(self, app: FastAPI, header: str) -> None:
        key = APIKeyHeader(name="X-API-Key")
        declaring, inner = APIRouter(), FastAPI()

        @declaring.get("/t/declared", dependencies=[Depends(key)])
        async def declared(x_tenant: Annotated[str, Header()]) -> None: ...

        @inner.get("/x")
        async def inside(x_inner: Annotated[str, Header()]) -> None: ...

        origins = {"BACKEND_CORS_ORIGINS": ["http://a.test"]}
        application = make_app(declaring, **origins, BACKEND_CORS_HEADERS=["X-Other"])
        application.mount("/inner", inner)
        asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": header}
        exchange = Exchange("/t/declared", method="OPTIONS", headers={"Origin": "http://a.test", **asked})
        await exchange.run(application)
        assert exchange.status == 200
        allowed = exchange.headers["access-control-allow-headers"].lower()
        assert set(header.lower().split(", ")) <= set(allowed.split(", "))

    async def test_a_refused_preflight_is_a_problem(self, serve: Serve) -> None:
        http = await serve(BACKEND_CORS_ORIGINS=["http://a.test"])
        asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "x-secret"}
        answer = await http.options("/api/v1/users", headers={"Origin": "http://a.test", **asked})
        problem = check(answer, 400, "cors_refused")
        assert problem["detail"] == "Disallowed CORS headers."
        assert answer.headers["access-control-allow-origin"] == "http://a.test"
        assert "x-secret" not in answer.text
        answer = await http.options("/api/v1/users", headers={"Origin": "http://b.test", **asked})
        assert check(answer, 400, "cors_refused")["detail"] == "Disallowed CORS origin, headers."
        assert "access-control-allow-origin" not in answer.headers

    async def test_others_may_not(self, serve: Serve) -> None:
        for settings in ({"BACKEND_CORS_ORIGINS": ["http://a.test"]}, {}):
            http = await serve(**settings)
            answer = await http.get("/health/live", headers={"Origin": "http://b.test"})
            assert "access-control-allow-origin" not in answer.headers


class TestCompression:
    async def test_large_answers_only_and_only_where_accepted(self, http: httpx.AsyncClient) -> None:
        async with http.stream("GET", "/t/large", headers={"Accept-Encoding": "gzip"}) as answer:
            raw = b"".join([piece async for piece in answer.aiter_raw()])
        assert answer.headers["content-encoding"] == "gzip"
        assert gzip.decompress(raw) == b'"' + b"x" * 5000 + b'"'
        plain = await http.get("/t/large", headers={"Accept-Encoding": "identity"})
        small = await http.get("/t/items/1", headers={"Accept-Encoding": "gzip"})
        assert "content-encoding" not in plain.headers
        assert "content-encoding" not in small.headers


class TestProxies:
    FORWARDED = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9", "X-Forwarded-Proto": "https"}  # noqa: RUF012

    async def test_nobody_is_believed_by_default(self, serve: Serve) -> None:
        http = await serve(router, client=("127.0.0.1", 1))
        answer = await http.get("/t/address", headers=self.FORWARDED)
        assert answer.json() == {"client": "127.0.0.1", "scheme": "http"}

    async def test_a_named_proxy_is_believed_for_the_address_it_saw(self, serve: Serve) -> None:
        http = await serve(router, client=("10.0.0.7", 1), TRUSTED_PROXIES=["10.0.0.0/8"])
        with captured_log() as lines:
            answer = await http.get("/t/address", headers=self.FORWARDED)
        assert answer.json() == {"client": "203.0.113.9", "scheme": "https"}
        assert lines.one("request")["client"] == "203.0.113.9"

    async def test_anybody_else_is_not(self, serve: Serve) -> None:
        http = await serve(router, TRUSTED_PROXIES=["10.0.0.0/8"])
        answer = await http.get("/t/address", headers=self.FORWARDED)
        assert answer.json() == {"client": "192.0.2.1", "scheme": "http"}
