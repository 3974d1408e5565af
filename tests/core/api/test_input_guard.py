"""Input that is too large, or that no text column can hold."""

import time
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Body, FastAPI, Form, Request, WebSocket

from tests.core.api.asgi import Exchange, WebSocketExchange
from tests.core.api.conftest import Serve, make_app
from tests.core.api.test_errors import check

JSON = {"content-type": "application/json"}

router = APIRouter(prefix="/t")
ran: list[str] = []


@router.post("/json")
async def read_json(value: Annotated[Any, Body()]) -> Any:
    return value


@router.post("/form")
async def read_form(name: Annotated[str, Form()]) -> str:
    return name


@router.post("/raw")
async def read_raw(request: Request) -> int:
    return len(await request.body())


@router.post("/none")
async def read_nothing() -> None:
    ran.append("none")


@router.get("/text/{text}")
async def read_text(text: str, q: str = "") -> str:
    return text + q


@router.get("/numbers/{number:int}")
async def read_number() -> None:
    ran.append("number")


@pytest.fixture
async def http(serve: Serve) -> httpx.AsyncClient:
    return await serve(router, MAX_BODY_SIZE=1000)


async def post(http: httpx.AsyncClient, content: bytes) -> httpx.Response:
    return await http.post("/t/json", content=content, headers=JSON)


class TestCost:
    """Parsing these takes more than their bytes: 0.1 to 0.25 s of processor time for 60 KB."""

    async def test_too_many_fields_in_a_query(self, http: httpx.AsyncClient) -> None:
        assert (await http.get("/t/text/a?" + "q=b&" * 999)).status_code == 200
        body = check(await http.get("/t/text/a?" + "q=b&" * 1000), 422, "invalid_input")
        assert body["errors"] == [
            {"loc": ["query"], "msg": "A query may have 1000 fields at most", "type": "query_fields"}
        ]

    @pytest.mark.parametrize("path", ["/t/json", "/t/none", "/api/v1/auth/login"])
    async def test_a_content_type_that_is_too_long(self, http: httpx.AsyncClient, path: str) -> None:
        headers = {"content-type": "multipart/form-data;" + ";" * 60_000}
        body = check(await http.post(path, content=b"{}", headers=headers), 422, "invalid_input")
        assert body["errors"][0]["loc"] == ["header", "content-type"]

    @pytest.mark.parametrize("path", ["/t/text/a", "/nowhere"])
    async def test_cookies_with_too_many_backslashes(self, http: httpx.AsyncClient, path: str) -> None:
        for size, is_refused in ((1000, False), (30_000, True)):
            headers = {"cookie": 'conversation_id="' + "\\" * 2 * size + '"'}
            began = time.process_time()
            answer = await http.get(path, headers=headers)
            assert time.process_time() - began < 0.25
            assert (answer.status_code == 400) is is_refused


class TestSize:
    async def test_a_query_that_is_too_long(self, serve: Serve) -> None:
        application = make_app(router)
        fits, too_long = Exchange("/t/text/a"), Exchange("/t/text/a")
        fits.scope["query_string"] = b"q=" + b"x" * (64 * 1024 - 2)
        too_long.scope["query_string"] = b"q=" + b"x" * (64 * 1024 - 1)
        await fits.run(application)
        await too_long.run(application)
        assert (fits.status, too_long.status) == (200, 414)
        assert b'"code":"uri_too_long"' in too_long.body

    async def test_a_path_that_is_too_long(self, http: httpx.AsyncClient) -> None:
        assert (await http.get("/t/numbers/" + "9" * 4000)).status_code == 200
        answer = await http.get("/t/numbers/" + "9" * 4301)  # int() refuses such a number
        assert (answer.status_code, answer.json()["code"]) == (414, "uri_too_long")

    async def test_up_to_the_limit_is_fine(self, http: httpx.AsyncClient) -> None:
        assert (await http.post("/t/raw", content=b"x" * 1000)).json() == 1000

    @pytest.mark.parametrize("path", ["/t/raw", "/t/json", "/t/form", "/nowhere"])
    async def test_an_announced_body_beyond_it_is_refused(self, http: httpx.AsyncClient, path: str) -> None:
        body = check(await http.post(path, content=b"x" * 1001), 413, "content_too_large")
        assert body["detail"] == "A body may have 1000 bytes at most."

    async def test_before_anything_happens(self, http: httpx.AsyncClient) -> None:
        ran.clear()
        assert (await http.post("/t/none", content=b"x" * 1001)).status_code == 413
        assert ran == []

    @pytest.mark.parametrize(
        ("path", "content_type"),
        [
            ("/t/raw", "application/octet-stream"),
            ("/t/json", "application/json"),
            ("/t/form", "application/x-www-form-urlencoded"),
            ("/t/form", "multipart/form-data; boundary=x"),
        ],
    )
    async def test_a_body_in_pieces_is_refused_as_soon_as_it_is_beyond(
        self, app: FastAPI, path: str, content_type: str
    ) -> None:
        opening = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n' if "multipart" in content_type else b""
        pieces = [
            {"type": "http.request", "body": piece, "more_body": True} for piece in (opening, *[b"x" * 400] * 100)
        ]
        exchange = Exchange(path, method="POST", headers={"content-type": content_type}, sent=[*pieces])
        await exchange.run(make_app(router, MAX_BODY_SIZE=1000))
        assert exchange.status == 413
        assert b'"content_too_large"' in exchange.body
        assert len(exchange.unsent) >= 97


class TestText:
    @pytest.mark.parametrize(
        "content",
        [
            rb'{"a": "x\u0000y"}',
            rb'{"a\u0000": 1}',
            rb'["\ud800"]',
            rb'["\uDBFF tail"]',
            rb'["\udc00"]',
            rb'["\udc00\ud800"]',
            rb'["\ud800\ud800"]',
            rb'["\\\u0000"]',
            b'["\xed\xa0\x80"]',
            b'["\xff"]',
            b'["\x00"]',
            '["x"]'.encode("utf-16"),
            '["x"]'.encode("utf-16-le"),
        ],
    )
    async def test_json_that_cannot_be_stored(self, http: httpx.AsyncClient, content: bytes) -> None:
        body = check(await post(http, content), 422, "invalid_input")
        assert body["errors"] == [
            {"loc": ["body"], "msg": "Text must be UTF-8 without NUL characters", "type": "string_unicode"}
        ]

    @pytest.mark.parametrize(
        ("content", "value"),
        [
            (rb'["\ud83c\udf89"]', ["🎉"]),
            (rb'["\uD83C\uDF89\u00e9"]', ["🎉é"]),
            (rb'["\\u0000 \\ud800"]', [r"\u0000 \ud800"]),
            ('["é🎉"]'.encode(), ["é🎉"]),
        ],
    )
    async def test_json_that_only_looks_like_it(self, http: httpx.AsyncClient, content: bytes, value: Any) -> None:
        answer = await post(http, content)
        assert (answer.status_code, answer.json()) == (200, value)

    async def test_in_pieces_too(self, app: FastAPI) -> None:
        pieces = [rb'["\u0', rb'000"]']
        sent: list[Any] = [
            {"type": "http.request", "body": piece, "more_body": number == 0} for number, piece in enumerate(pieces)
        ]
        exchange = Exchange("/t/json", method="POST", headers=JSON, sent=sent)
        await exchange.run(make_app(router))
        assert exchange.status == 422

    @pytest.mark.parametrize("media_type", ["application/problem+json", "APPLICATION/JSON; charset=utf-8"])
    async def test_however_json_is_called(self, http: httpx.AsyncClient, media_type: str) -> None:
        answer = await http.post("/t/json", content=rb'["\u0000"]', headers={"content-type": media_type})
        check(answer, 422, "invalid_input")

    @pytest.mark.parametrize("content", [b"name=a%00b", b"x=1&name=%ff", b"name=%ed%a0%80", b"name=\xff"])
    async def test_forms(self, http: httpx.AsyncClient, content: bytes) -> None:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        body = check(await http.post("/t/form", content=content, headers=headers), 422, "invalid_input")
        assert body["errors"][0]["loc"] == ["body", "name"]

    async def test_the_first_of_several_content_types_counts(self, http: httpx.AsyncClient) -> None:
        """It is the one that decides how the body is read."""
        types = [("content-type", "application/json"), ("content-type", "text/plain")]
        check(await http.post("/t/json", content=rb'["\ud800"]', headers=types), 422, "invalid_input")

    @pytest.mark.parametrize(
        ("charset", "status"),
        [("utf-8", 200), ("UTF8", 200), ("unicode_escape", 422), ('"raw_unicode_escape"', 422), ("utf-16", 422)],
    )
    async def test_multipart_text_is_utf_8(self, http: httpx.AsyncClient, charset: str, status: int) -> None:
        content = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n\\ud800\r\n--x--\r\n'
        headers = {"content-type": f"multipart/form-data; boundary=x; charset={charset}"}
        answer = await http.post("/t/form", content=content, headers=headers)
        assert answer.status_code == status
        if status == 422:
            assert check(answer, 422, "invalid_input")["errors"][0]["loc"] == ["header", "content-type"]

    async def test_other_bodies_may_hold_anything(self, http: httpx.AsyncClient) -> None:
        assert (await http.post("/t/raw", content=b"\x00\xff")).json() == 2

    @pytest.mark.parametrize("query", ["q=%00", "a=1&q=%ff", "q=%ED%A0%80", "q=%c3"])
    async def test_queries_name_the_parameter(self, http: httpx.AsyncClient, query: str) -> None:
        body = check(await http.get(f"/t/text/x?{query}"), 422, "invalid_input")
        assert body["errors"][0]["loc"] == ["query", "q"]

    async def test_they_name_no_parameter_of_the_callers_own(self, http: httpx.AsyncClient) -> None:
        for path in ("/t/text/x", "/nowhere"):
            body = check(await http.get(f"{path}?hunter2=%ff"), 422, "invalid_input")
            assert body["errors"][0]["loc"] == ["query", "?"]

    async def test_names_of_parameters_count_too(self, http: httpx.AsyncClient) -> None:
        check(await http.get("/t/text/x?a%00b=1"), 422, "invalid_input")

    @pytest.mark.parametrize("path", ["/t/text/%ff", "/t/text/%ED%A0%80", "/nowhere/%c3"])
    async def test_paths_are_not_silently_replaced(self, http: httpx.AsyncClient, path: str) -> None:
        answer = await http.get(path)
        assert (answer.status_code, answer.json()["errors"][0]["loc"]) == (422, ["path"])

    async def test_paths(self, http: httpx.AsyncClient) -> None:
        body = check(await http.get("/t/text/a%00b"), 422, "invalid_input")
        assert body["errors"][0]["loc"] == ["path"]

    async def test_other_languages_pass(self, http: httpx.AsyncClient) -> None:
        assert (await http.get("/t/text/é", params={"q": "日 +&"})).json() == "é日 +&"


class TestHead:
    """RFC 9112 section 3.2: a request that can be read in two ways is refused."""

    @pytest.mark.parametrize(
        ("version", "headers", "status"),
        [
            ("1.1", [(b"host", b"a.test:8000")], 200),
            ("1.1", [(b"host", b"[2001:db8::1]:80")], 200),
            ("1.1", [(b"host", b"")], 200),
            ("1.0", [], 200),
            ("1.1", [], 400),
            ("1.1", [(b"host", b"a.test"), (b"host", b"a.test")], 400),
            ("1.0", [(b"host", b"a.test"), (b"host", b"b.test")], 400),
            ("1.1", [(b"host", b"a.test/x")], 400),
            ("1.1", [(b"host", b"ann@a.test")], 400),
            ("1.1", [(b"host", b"a.test"), (b"authorization", b"Bearer a")], 200),
            ("1.1", [(b"host", b"a.test"), (b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")], 400),
        ],
    )
    async def test_hosts_and_credentials(
        self, app: FastAPI, version: str, headers: list[tuple[bytes, bytes]], status: int
    ) -> None:
        exchange = Exchange("/t/text/a")
        exchange.scope |= {"http_version": version, "headers": headers, "query_string": b""}
        await exchange.run(make_app(router))
        assert exchange.status == status
        if status == 400:
            assert b'"code":"bad_request"' in exchange.body

    async def test_a_websocket_too(self, app: FastAPI) -> None:
        exchange = WebSocketExchange("/t/socket", client="192.0.2.1", texts=[])
        exchange.scope["headers"] *= 2
        await exchange.run(make_app(router))
        assert exchange.received[0]["status"] == 400

    @pytest.mark.parametrize(("path", "query", "loc"), [("a\0", b"", '["path"]'), ("a", b"q=%ff", '["query","q"]')])
    async def test_nor_text_that_cannot_be_stored(self, app: FastAPI, path: str, query: bytes, loc: str) -> None:
        sockets = APIRouter()

        @sockets.websocket("/t/rooms/{room}")
        async def enter(websocket: WebSocket, room: str, q: str = "") -> None:
            await websocket.accept()

        exchange = WebSocketExchange(f"/t/rooms/{path}", client="192.0.2.1", texts=[])
        exchange.scope["query_string"] = query
        await exchange.run(make_app(sockets))
        assert exchange.received[0].get("status") == 422
        assert f'"loc":{loc}'.encode() in exchange.received[1]["body"]
