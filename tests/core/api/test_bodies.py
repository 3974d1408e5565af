"""Bodies that nothing reads as their sender meant them: each a 422 that says why, and nothing is changed."""

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Body, FastAPI, File, Form, Request, UploadFile
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel

from app.core.api.json_bodies import MAX_DEPTH, MAX_NAMES, MAX_NODES
from tests.core.api.conftest import Serve
from tests.core.api.test_errors import check

JSON = {"content-type": "application/json"}
URLENCODED = {"content-type": "application/x-www-form-urlencoded"}
MULTIPART = {"content-type": "multipart/form-data; boundary=x"}
ECHO = "hunter2"

router = APIRouter(prefix="/t")
ran: list[Any] = []


class Thing(BaseModel):
    name: str


@router.post("/any")
async def read_any(value: Annotated[Any, Body()]) -> int:
    ran.append(value)
    return 1


@router.post("/thing")
async def read_thing(thing: Thing) -> str:
    return thing.name


@router.post("/text")
async def read_text(text: Annotated[str, Body()]) -> str:
    return text


@router.post("/octets")
async def read_octets(data: Annotated[bytes, Body(media_type="application/octet-stream")]) -> int:
    return len(data)


@router.post("/form")
async def read_form(name: Annotated[str, Form()]) -> str:
    return name


@router.post("/file")
async def read_file(file: Annotated[UploadFile, File()], name: Annotated[str, Form()] = "") -> int:
    return len(await file.read())


@router.post("/raw")
async def read_raw(request: Request) -> int:
    return len(await request.body())


@router.post("/large", max_body_size=2 * 2**20)
async def read_large(value: Annotated[Any, Body()]) -> int:
    return len(value)


@router.post("/small", max_body_size=100)
async def read_small(request: Request) -> int:
    return len(await request.body())


@router.post("/fields", form_limits={"max_fields": 300})
async def read_fields(name: Annotated[list[str], Form()]) -> int:
    return len(name)


@pytest.fixture
async def http(serve: Serve) -> httpx.AsyncClient:
    ran.clear()
    return await serve(router)


async def refused(http: httpx.AsyncClient, content: bytes) -> dict[str, Any]:
    """The one fault of a JSON body that must not reach the endpoint."""
    answer = await http.post("/t/any", content=content, headers=JSON)
    body = check(answer, 422, "invalid_input")
    assert ECHO not in answer.text
    assert ran == []
    (fault,) = body["errors"]
    assert isinstance(fault, dict)
    return fault


class TestDepth:
    @pytest.mark.parametrize(
        "content",
        [
            b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
            b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
            b'[{"a":' * MAX_DEPTH + b"1" + b"}]" * MAX_DEPTH,
            b"[" * 500 + b"]" * 500,
            b"[" * 9000 + b"]" * 9000,
            b"[" * 9000,
            b'{"a":' * 9000,
        ],
    )
    async def test_beyond_the_limit(self, http: httpx.AsyncClient, content: bytes) -> None:
        assert await refused(http, content) == {
            "loc": ["body"],
            "msg": "Arrays and objects may be nested 64 levels deep at most",
            "type": "json_depth",
        }

    @pytest.mark.parametrize(
        "content",
        [
            b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
            b"[" * (MAX_DEPTH - 1) + b"[],[]" + b"]" * (MAX_DEPTH - 1),
            b"[" + b",".join([b"[[]]"] * 4999) + b"]",
            b'["' + b"[" * 5000 + b'"]',
        ],
    )
    async def test_up_to_the_limit_and_as_wide_as_one_likes(self, http: httpx.AsyncClient, content: bytes) -> None:
        assert (await http.post("/t/any", content=content, headers=JSON)).status_code == 200


class TestNames:
    @pytest.mark.parametrize(
        "content",
        [
            b'{"hunter2": 1, "hunter2": 2}',
            b'{"a": {"b": 1, "c": 2, "b": 1}}',
            b'[1, {"a": null, "a": null}]',
            rb'{"a": 1, "\u0061": 2}',
            b'{"": 1, "": 2}',
        ],
    )
    async def test_given_twice(self, http: httpx.AsyncClient, content: bytes) -> None:
        fault = await refused(http, content)
        assert (fault["loc"], fault["type"]) == (["body"], "json_duplicate_name")

    async def test_of_different_objects(self, http: httpx.AsyncClient) -> None:
        content = b'[{"a": 1, "A": 2}, {"a": {"a": 1}}]'
        assert (await http.post("/t/any", content=content, headers=JSON)).status_code == 200


def names(count: int) -> bytes:
    return b"{%s}" % b",".join(b'"%d":1' % number for number in range(count))


class TestAmount:
    """What costs time to decode, to check and to report is counted before it is decoded."""

    @pytest.mark.parametrize(
        "content",
        [
            b"[%s]" % b",".join([b"0"] * MAX_NODES),
            b"[%s]" % b" , ".join([b"[ ]"] * MAX_NODES),
            b"[%s]" % b",".join([b'""'] * MAX_NODES),
            b"[%s]" % b",".join([rb'"\\\""'] * MAX_NODES),
            b"[%s]" % b",".join([names(9)] * 1001),
            names(80_000),
        ],
    )
    async def test_too_many_values(self, http: httpx.AsyncClient, content: bytes) -> None:
        fault = await refused(http, content)
        assert (fault["type"], fault["msg"]) == ("json_nodes", "A body may hold 10000 values at most")

    async def test_too_many_names(self, http: httpx.AsyncClient) -> None:
        fault = await refused(http, b'[%s, {"a": %s}]' % (names(MAX_NAMES), names(MAX_NAMES + 1)))
        assert (fault["type"], fault["msg"]) == ("json_names", "An object may have 200 names at most")

    @pytest.mark.parametrize(
        "content",
        [
            b"[%s]" % b",".join([b"0"] * (MAX_NODES - 1)),
            b"[%s]" % b" , ".join([b"[ ]"] * (MAX_NODES - 1)),
            b"[%s]" % b",".join([b'"[,{"'] * (MAX_NODES - 1)),
            b'"%s"' % (b",[{" * 100_000),
            b'"%s"' % (rb"\",\\" * 100_000),
            names(MAX_NAMES),
        ],
    )
    async def test_what_fits(self, http: httpx.AsyncClient, content: bytes) -> None:
        assert (await http.post("/t/any", content=content, headers=JSON)).status_code == 200

    async def test_a_route_for_more_bytes_takes_more_values(self, http: httpx.AsyncClient) -> None:
        content = b"[%s]" % b",".join([b"[0]"] * (MAX_NODES - 1))
        assert (await http.post("/t/large", content=content, headers=JSON)).json() == MAX_NODES - 1

    @pytest.mark.parametrize("separator", [b"&", b"name=a&", b"%c3%a9&"])
    async def test_too_many_fields(self, http: httpx.AsyncClient, separator: bytes) -> None:
        answer = await http.post("/t/form", content=separator * 100, headers=URLENCODED)
        (fault,) = check(answer, 422, "invalid_input")["errors"]
        assert fault == {"loc": ["body"], "msg": "A form may have 100 fields at most", "type": "form_fields"}

    async def test_as_many_fields_as_the_route_says(self, http: httpx.AsyncClient) -> None:
        assert (await http.post("/t/form", content=b"name=a&" * 99, headers=URLENCODED)).json() == "a"
        assert (await http.post("/t/fields", content=b"name=a&" * 299, headers=URLENCODED)).json() == 299
        check(await http.post("/t/fields", content=b"name=a&" * 301, headers=URLENCODED), 422, "invalid_input")

    async def test_no_body_takes_long(self, http: httpx.AsyncClient) -> None:
        """Each took 0.3 s or more of processor time, which every other request waited for."""
        mebibyte = 2**20
        for path, content, headers in [
            ("/t/thing", names(80_000), JSON),
            ("/t/any", b"[%s]" % b",".join([b"[]"] * 300_000), JSON),
            ("/t/any", b"[]" * (mebibyte // 2), JSON),
            ("/t/any", b"[" * 65 + b"]" * (mebibyte - 65), JSON),
            ("/api/v1/auth/refresh-token", names(80_000), JSON),
            ("/api/v1/auth/login", b"&" * mebibyte, URLENCODED),
            ("/t/form", b"&" * mebibyte, URLENCODED),
            ("/t/form", b"name=" + b"%41" * 300_000, URLENCODED),
        ]:
            await http.post(path, content=b"", headers=headers)  # what is made once does not count
            began = time.process_time()
            assert (await http.post(path, content=content, headers=headers)).status_code in (413, 422)
            assert time.process_time() - began < 0.25, path


class TestSizeByRoute:
    """FastAPI's own declaration, `max_body_size`, raises and lowers what `MAX_BODY_SIZE` says."""

    @pytest.mark.parametrize("announced", [True, False])
    async def test_it_may_be_more_or_less(self, http: httpx.AsyncClient, announced: bool) -> None:
        async def post(path: str, size: int) -> httpx.Response:
            content = b'"%s"' % (b"x" * (size - 2))

            async def pieces() -> AsyncIterator[bytes]:
                for place in range(0, size, 50_000):
                    yield content[place : place + 50_000]

            return await http.post(path, content=content if announced else pieces(), headers=JSON)

        assert (await post("/t/large", 2 * 2**20)).status_code == 200
        body = check(await post("/t/large", 2 * 2**20 + 1), 413, "content_too_large")
        assert body["detail"] == "A body may have 2097152 bytes at most."
        assert (await post("/t/small", 100)).json() == 100
        check(await post("/t/small", 101), 413, "content_too_large")
        check(await post("/t/any", 2**20 + 1), 413, "content_too_large")
        check(await post("/api/v1/auth/refresh-token", 16 * 1024 + 1), 413, "content_too_large")

    async def test_urlencoded_forms_are_small(self, http: httpx.AsyncClient) -> None:
        content = b"name=" + b"x" * (256 * 1024)
        check(await http.post("/t/form", content=content, headers=URLENCODED), 413, "content_too_large")

    def test_what_proves_or_asks_for_a_credential_is_small(self, app: FastAPI) -> None:
        for route in iter_route_contexts(app.routes):
            if str(route.path).startswith(("/api/v1/auth", "/api/v1/profile")) and route.body_field:
                assert route.max_body_size == 16 * 1024, route.path


class TestNumbers:
    @pytest.mark.parametrize(
        "content", [b"NaN", b"[Infinity]", b"-Infinity", b"1e999", b'{"a": -1e400}', b"1" * 5000, b"[-" + b"9" * 4301]
    )
    async def test_that_are_none(self, http: httpx.AsyncClient, content: bytes) -> None:
        assert (await refused(http, content))["type"] == "json_number"

    @pytest.mark.parametrize("content", [b"1e308", b"[1.5, -0.0, 0]", b"9" * 4300])
    async def test_that_are_some(self, http: httpx.AsyncClient, content: bytes) -> None:
        assert (await http.post("/t/any", content=content, headers=JSON)).status_code == 200


class TestNoJSON:
    @pytest.mark.parametrize("content", [b"{", b"[1,]", b'{"a"}', b"hunter2", b"'hunter2'", b"[1] 2", b'{"a": 01}'])
    async def test_it_tells_where(self, http: httpx.AsyncClient, content: bytes) -> None:
        fault = await refused(http, content)
        assert fault["type"] == "json_invalid"
        assert fault["loc"][0] == "body"

    @pytest.mark.parametrize("headers", [{}, JSON])
    async def test_nothing_at_all_is_a_missing_body(self, http: httpx.AsyncClient, headers: dict[str, str]) -> None:
        answer = await http.post("/t/thing", headers=headers)
        assert check(answer, 422, "invalid_input")["errors"][0]["type"] == "missing"

    async def test_a_byte_order_mark_is_no_fault(self, http: httpx.AsyncClient) -> None:
        answer = await http.post("/t/thing", content=b'\xef\xbb\xbf{"name": "ann"}', headers=JSON)
        assert answer.json() == "ann"


class TestContentType:
    @pytest.mark.parametrize("path", ["/t/any", "/t/thing", "/t/text"])
    @pytest.mark.parametrize(
        "kind",
        [
            None,
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "json",
            "a/b/c",
            "text/json",
            "application/jsonx",
            "*/*",
        ],
    )
    async def test_json_is_expected(self, http: httpx.AsyncClient, path: str, kind: str | None) -> None:
        headers = {} if kind is None else {"content-type": kind}
        body = check(await http.post(path, content=b'{"name": "hunter2"}', headers=headers), 422, "invalid_input")
        assert body["errors"] == [
            {"loc": ["header", "content-type"], "msg": "The body must be application/json", "type": "content_type"}
        ]
        assert ran == []

    @pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/x.y+json"])
    async def test_however_json_is_called(self, http: httpx.AsyncClient, kind: str) -> None:
        answer = await http.post("/t/thing", content=b'{"name": "ann"}', headers={"content-type": kind})
        assert answer.json() == "ann"

    @pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencodedx"])
    async def test_of_another_type_a_form_has_no_fields(self, http: httpx.AsyncClient, kind: str) -> None:
        answer = await http.post("/t/form", content=b"name=a", headers={"content-type": kind})
        fault = check(answer, 422, "invalid_input")["errors"][0]
        assert (fault["loc"], fault["type"]) == (["body", "name"], "missing")

    async def test_files_are_expected(self, http: httpx.AsyncClient) -> None:
        body = check(await http.post("/t/file", data={"name": "a"}), 422, "invalid_input")
        assert body["errors"][0]["msg"] == "The body must be multipart/form-data"

    async def test_operations_with_a_type_of_their_own_take_it(self, http: httpx.AsyncClient) -> None:
        for path in ("/t/octets", "/t/raw"):
            for kind in ("application/octet-stream", "text/plain"):
                answer = await http.post(path, content=b"\0\xff", headers={"content-type": kind})
                assert answer.json() == 2


def part(value: bytes, disposition: bytes = b'name="name"') -> bytes:
    return b"--x\r\nContent-Disposition: form-data; " + disposition + b"\r\n\r\n" + value + b"\r\n"


class TestMultipart:
    @pytest.mark.parametrize(
        "content", [part(b"a\0b"), part(b"a\xffb"), part(b"\xed\xa0\x80"), part(b"a", b'name="na\0me"')]
    )
    async def test_text_that_cannot_be_stored(self, http: httpx.AsyncClient, content: bytes) -> None:
        answer = await http.post("/t/form", content=content + b"--x--\r\n", headers=MULTIPART)
        assert check(answer, 422, "invalid_input")["errors"][0]["type"] == "string_unicode"

    async def test_files_hold_anything(self, http: httpx.AsyncClient) -> None:
        content = part(b"\0\xff", b'name="file"; filename="a"') + part(b"ann") + b"--x--\r\n"
        assert (await http.post("/t/file", content=content, headers=MULTIPART)).json() == 2

    @pytest.mark.parametrize("content", [b"hunter2", b"--x\r\n\r\nhunter2\r\n--x--", part(b"a", b"hunter2") + b"--x--"])
    async def test_what_is_none_is_the_callers_fault(self, http: httpx.AsyncClient, content: bytes) -> None:
        answer = await http.post("/t/form", content=content, headers=MULTIPART)
        assert 400 <= answer.status_code < 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert ECHO not in answer.text
