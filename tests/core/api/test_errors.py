"""Every error is a problem: RFC 9457, with ids, without the input and without the cause."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, EmailStr, Field, field_validator
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine

from app.core.api import Response
from app.core.api.errors import STATUS_OF
from app.core.db import Database
from app.core.deps import DBSession
from app.core.exceptions import (
    AppError,
    AuthenticationError,
    CheckViolation,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    UnavailableError,
)
from tests.core.api.asgi import Exchange
from tests.core.api.conftest import Serve, make_app
from tests.core.log.capture import captured_log

SECRET = "hunter2"


class Cat(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(default="x", max_length=5)
    age: int = 1
    email: EmailStr = "a@example.com"
    id: UUID | None = None
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    numbers: list[int] = []
    even: int = 0
    sizes: dict[str, int] = {}

    @field_validator("even")
    @classmethod
    def _must_be_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


router = APIRouter(prefix="/t")
raised: dict[str, Exception] = {}


@router.get("/raise/{name}")
async def raise_it(name: str) -> None:
    raise raised[name]


@router.post("/form")
async def form(value: Form) -> Form:
    return value


@router.patch("/form")
async def patch_form() -> None: ...


@router.get("/number/{number}")
async def number(number: int, page: int = 1) -> int:
    return number + page


@router.get("/invalid-answer")
async def invalid_answer() -> Response[int]:
    return Response[Any](data=SECRET)


@router.get("/invalid-inside")
async def invalid_inside() -> None:
    Form.model_validate({"age": SECRET})


@router.get("/bad-sql")
async def bad_sql(db: DBSession) -> None:
    await db.execute(text("SELECT * FROM nowhere"))


@router.get("/unreachable")
async def unreachable() -> None:
    engine = create_async_engine(make_url("postgresql+psycopg://nobody:hunter2@127.0.0.1:1/nothing"))
    async with engine.connect():
        raise AssertionError("nothing listens there")


@router.get("/no-file")
async def no_file() -> None:
    engine = create_async_engine(make_url("sqlite+aiosqlite:////nowhere/at/all.db"))
    async with engine.connect():
        raise AssertionError("no such folder")


@router.get("/exhausted")
async def exhausted(path: Path) -> None:
    url = make_url(f"sqlite+aiosqlite:///{path}")
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    try:
        async with engine.connect(), engine.connect():
            raise AssertionError("there is one connection only")
    finally:
        await engine.dispose()


@pytest.fixture
async def http(serve: Serve) -> httpx.AsyncClient:
    return await serve(router)


def check(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Assert the members every problem has, and give back the whole."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:problem-type:{code}"
    assert (body["status"], body["code"]) == (status, code)
    assert body["instance"] == answer.request.url.raw_path.decode().partition("?")[0]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["title"]
    assert body["detail"]
    return body


class TestAppErrors:
    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (AppError(), 400, "error"),
            (AuthenticationError(), 401, "not_authenticated"),
            (PermissionDeniedError(), 403, "permission_denied"),
            (NotFoundError("No such thing."), 404, "not_found"),
            (ConflictError(), 409, "conflict"),
            (CheckViolation(), 409, "value_not_allowed"),
            (InvalidInputError(), 422, "invalid_input"),
            (RateLimitedError(), 429, "rate_limited"),
            (UnavailableError(), 503, "unavailable"),
        ],
    )
    async def test_each_kind_has_its_status(
        self, http: httpx.AsyncClient, error: AppError, status: int, code: str
    ) -> None:
        raised["it"] = error
        body = check(await http.get("/t/raise/it?token=hunter2"), status, code)
        assert body["detail"] == error.detail
        assert SECRET not in str(body)

    async def test_the_table_knows_every_kind(self) -> None:
        of_core = {kind for kind in AppError.__subclasses__() if kind.__module__ == AppError.__module__}
        assert of_core <= set(STATUS_OF)  # a module's own may be a 400, as AppError is

    async def test_extra_members_are_added_and_replace_none(self, http: httpx.AsyncClient) -> None:
        raised["it"] = AuthenticationError(error="invalid_grant", status=200)
        body = check(await http.get("/t/raise/it"), 401, "not_authenticated")
        assert body["error"] == "invalid_grant"

    async def test_a_401_names_the_scheme(self, http: httpx.AsyncClient) -> None:
        raised["it"], raised["plain"] = AuthenticationError(), HTTPException(401)
        for name in ("it", "plain"):
            assert (await http.get(f"/t/raise/{name}")).headers["www-authenticate"] == "Bearer"

    async def test_429_and_503_say_when_to_try_again(self, http: httpx.AsyncClient) -> None:
        raised["limited"], raised["away"] = RateLimitedError(retry_after=7), UnavailableError(retry_after=9)
        raised["plain"] = HTTPException(503)
        waits = [(await http.get(f"/t/raise/{name}")).headers["retry-after"] for name in ("limited", "away", "plain")]
        assert waits == ["7", "9", "1"]

    async def test_faults_show_place_message_and_type_only(self, http: httpx.AsyncClient) -> None:
        fault = {"loc": ["query", "sort"], "msg": "Unknown field.", "type": "unknown_field"}
        raised["it"] = InvalidInputError("Not a list query.", errors=[{**fault, "input": SECRET, "ctx": {"x": SECRET}}])
        body = check(await http.get("/t/raise/it"), 422, "invalid_input")
        assert body["errors"] == [fault]
        assert body["detail"] == "Not a list query."

    async def test_the_cause_of_a_503_is_in_the_log_and_not_in_the_answer(self, http: httpx.AsyncClient) -> None:
        raised["it"] = UnavailableError()
        raised["it"].__cause__ = ConnectionError("mail.internal refused")
        with captured_log() as lines:
            body = check(await http.get("/t/raise/it"), 503, "unavailable")
        assert "mail.internal" not in str(body)
        assert "mail.internal" in lines.one("request")["exception"]


class TestHttpErrors:
    async def test_unknown_path(self, http: httpx.AsyncClient) -> None:
        check(await http.get("/nowhere"), 404, "not_found")

    async def test_a_slash_too_many_is_no_redirect(self, http: httpx.AsyncClient) -> None:
        check(await http.get("/health/"), 404, "not_found")

    async def test_wrong_method_names_all_that_fit(self, http: httpx.AsyncClient) -> None:
        answer = await http.put("/t/form")
        check(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "PATCH, POST"

    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (HTTPException(418, "short and stout"), 418, "im_a_teapot"),
            (HTTPException(403, {"not": "text"}), 403, "permission_denied"),
            (HTTPException(499), 499, "error"),
        ],
    )
    async def test_any_other(self, http: httpx.AsyncClient, error: HTTPException, status: int, code: str) -> None:
        raised["it"] = error
        check(await http.get("/t/raise/it"), status, code)

    async def test_statuses_without_a_body_have_none(self, http: httpx.AsyncClient) -> None:
        raised["it"] = HTTPException(304, headers={"ETag": '"x"'})
        answer = await http.get("/t/raise/it")
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"x"')


class TestInvalidInput:
    @pytest.mark.parametrize(
        ("given", "loc"),
        [
            ({"name": "hunter2-hunter2"}, ["body", "name"]),
            ({"age": SECRET}, ["body", "age"]),
            ({"age": {"password": SECRET}}, ["body", "age"]),
            ({"email": f"a@{SECRET} .com"}, ["body", "email"]),
            ({"id": SECRET}, ["body", "id"]),
            ({"pet": {"kind": SECRET}}, ["body", "pet"]),
            ({"numbers": [1, SECRET]}, ["body", "numbers", 1]),
            ({"unknown": SECRET}, ["body", "?"]),
            ({"pet": {"kind": "cat", "unknown": SECRET}}, ["body", "pet", "cat", "?"]),
            ({"sizes": {SECRET: "x"}}, ["body", "sizes", "?"]),
            ([SECRET], ["body"]),
            (SECRET, ["body"]),
        ],
    )
    async def test_faults_are_named_and_the_input_is_not_repeated(
        self, http: httpx.AsyncClient, given: Any, loc: list[str | int]
    ) -> None:
        answer = await http.post("/t/form", json=given)
        body = check(answer, 422, "invalid_input")
        assert [fault["loc"] for fault in body["errors"]] == [loc]
        assert set(body["errors"][0]) == {"loc", "msg", "type"}
        assert SECRET not in answer.text

    async def test_the_words_of_our_own_validators_stay(self, http: httpx.AsyncClient) -> None:
        body = check(await http.post("/t/form", json={"even": 3}), 422, "invalid_input")
        assert body["errors"][0]["msg"] == "Value error, must be even"

    @pytest.mark.parametrize("content", [b'{"name": "hunter2', b"hunter2", b"[" * 20])
    async def test_malformed_json(self, http: httpx.AsyncClient, content: bytes) -> None:
        answer = await http.post("/t/form", content=content, headers={"content-type": "application/json"})
        body = check(answer, 422, "invalid_input")
        assert body["errors"][0]["type"] == "json_invalid"
        assert SECRET not in answer.text

    @pytest.mark.parametrize("content", [b"[" * 50_000, b'{"age": ' + b"9" * 5000 + b"}"])
    async def test_json_that_python_cannot_hold(self, http: httpx.AsyncClient, content: bytes) -> None:
        answer = await http.post("/t/form", content=content, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422)
        assert answer.headers["content-type"] == "application/problem+json"

    async def test_path_and_query(self, http: httpx.AsyncClient) -> None:
        body = check(await http.get("/t/number/one?page=two"), 422, "invalid_input")
        assert [fault["loc"] for fault in body["errors"]] == [["path", "number"], ["query", "page"]]

    async def test_a_thousand_faults_are_not_a_long_answer(self, http: httpx.AsyncClient) -> None:
        body = check(await http.post("/t/form", json={"numbers": ["x"] * 1000}), 422, "invalid_input")
        assert len(body["errors"]) in range(10, 21)

    @pytest.mark.parametrize(
        ("path", "given"),
        [
            ("/t/form", {f"{SECRET}{number}": 1 for number in range(200)}),
            ("/t/form", {"numbers": ["x"] * 1000}),
            ("/t/form?" + f"{SECRET}=%ff", {}),
            ("/t/" + SECRET * 7000, {}),
            ("/t/" + "%C3%A9" * 9000, {}),
            ("/api/v1/profile/" + SECRET * 7000, {}),
        ],
    )
    async def test_whatever_was_sent_an_error_is_short(self, http: httpx.AsyncClient, path: str, given: Any) -> None:
        answer = await http.post(path, json=given)
        assert answer.status_code >= 400
        assert sum(len(name) + len(value) + 4 for name, value in answer.headers.raw) + len(answer.content) <= 4096
        assert answer.text.count(SECRET) <= 256 / len(SECRET)
        body = answer.json()
        assert len(body["instance"]) <= 256
        assert unquote(body["instance"], errors="strict") == httpx.URL(path).path[: len(unquote(body["instance"]))]
        assert SECRET not in str(body.get("errors"))

    @pytest.mark.parametrize("name", ["x" * 65, "ann@example.com", "<script>", "\u202e", "a b", "", "{'age': 1}"])
    async def test_what_is_no_name_of_a_field_is_not_repeated(self, http: httpx.AsyncClient, name: str) -> None:
        body = check(await http.post("/t/form", json={name: 1}), 422, "invalid_input")
        assert body["errors"][0]["loc"] == ["body", "?"]


class TestOurFaults:
    @pytest.mark.parametrize("path", ["/t/invalid-answer", "/t/invalid-inside", "/t/bad-sql", "/t/raise/bug"])
    async def test_a_500_says_nothing_of_the_cause(self, http: httpx.AsyncClient, db: Any, path: str) -> None:
        raised["bug"] = RuntimeError(SECRET)
        with captured_log() as lines:
            body = check(await http.get(path), 500, "internal_error")
        assert body["detail"] == "Something went wrong on our side."
        line = lines.one("request")
        assert (line["level"], line["status"]) == ("error", 500)
        assert "Traceback" in line["exception"]

    @pytest.mark.parametrize("path", ["/t/invalid-answer", "/t/invalid-inside"])
    async def test_what_was_sent_is_not_in_the_log_either(self, http: httpx.AsyncClient, path: str) -> None:
        with captured_log() as lines:
            await http.get(path)
        assert SECRET not in lines.text

    async def test_it_carries_ids_cors_and_security_headers(self, serve: Serve) -> None:
        raised["bug"] = RuntimeError()
        http = await serve(router, BACKEND_CORS_ORIGINS=["http://a.test"])
        answer = await http.get("/t/raise/bug", headers={"Origin": "http://a.test", "X-Request-ID": "mine"})
        assert check(answer, 500, "internal_error")["request_id"] == "mine"
        assert answer.headers["access-control-allow-origin"] == "http://a.test"
        assert answer.headers["x-content-type-options"] == "nosniff"


streaming = APIRouter(prefix="/s")


async def fails_at(position: int) -> AsyncIterator[str]:
    for number in range(3):
        if number == position:
            raise raised["stream"]
        yield "" if number == 0 else "x" * 50


@streaming.get("/{position}")
async def stream(position: int) -> StreamingResponse:
    return StreamingResponse(fails_at(position), media_type="text/csv", headers={"X-Rows": "3"})


@streaming.get("/items/late")
async def late_items() -> AsyncIterator[int]:
    raise raised["stream"]
    yield 1


class TestFirstBytes:
    @pytest.mark.parametrize("path", ["/s/0", "/s/1", "/s/items/late"])
    @pytest.mark.parametrize("encoding", ["gzip", "identity"])
    @pytest.mark.parametrize(
        ("error", "status", "code"),
        [
            (RuntimeError(SECRET), 500, "internal_error"),
            (PoolTimeout(SECRET), 503, "unavailable"),
            (NotFoundError(), 404, "not_found"),
            (HTTPException(409, "taken"), 409, "conflict"),
        ],
    )
    async def test_what_fails_before_the_first_byte_is_a_problem(
        self, serve: Serve, path: str, encoding: str, error: Exception, status: int, code: str
    ) -> None:
        raised["stream"] = error
        http = await serve(streaming, BACKEND_CORS_ORIGINS=["http://a.test"])
        headers = {"Origin": "http://a.test", "X-Request-ID": "mine", "Accept-Encoding": encoding}
        with captured_log() as lines:
            answer = await http.get(path, headers=headers)
        assert check(answer, status, code)["request_id"] == answer.headers["x-request-id"] == "mine"
        assert answer.headers["access-control-allow-origin"] == "http://a.test"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "x-rows" not in answer.headers
        assert SECRET not in answer.text
        assert lines.one("request")["status"] == status

    async def test_what_ends_well_is_as_it_was(self, serve: Serve) -> None:
        answer = await (await serve(streaming)).get("/s/9")
        assert (answer.status_code, answer.text, answer.headers["x-rows"]) == (200, "x" * 100, "3")


class TestOutages:
    @pytest.mark.parametrize("name", ["unreachable", "no-file", "exhausted"])
    async def test_a_database_that_does_not_answer_is_a_503(
        self, http: httpx.AsyncClient, tmp_path: Path, name: str
    ) -> None:
        with captured_log() as lines:
            answer = await http.get(f"/t/{name}", params={"path": str(tmp_path / "x.db")})
        body = check(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "1"
        assert SECRET not in answer.text
        assert "127.0.0.1" not in str(body)
        assert "Traceback" in lines.one("request")["exception"]

    async def test_a_connection_the_server_closed(self, serve: Serve, committed: Database) -> None:
        if committed.engine.dialect.name != "postgresql":
            pytest.skip("SQLite has no server")
        closing = APIRouter()

        @closing.get("/closed")
        async def closed(db: DBSession) -> None:
            await db.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

        check(await (await serve(closing)).get("/closed"), 503, "unavailable")


class TestStreams:
    async def test_an_error_midway_ends_the_answer_and_is_logged_once(self, app: FastAPI) -> None:
        streaming = APIRouter()

        @streaming.get("/stream")
        async def stream() -> StreamingResponse:
            async def chunks() -> AsyncIterator[bytes]:
                yield b"half"
                await asyncio.sleep(0)
                raise RuntimeError("midway")

            return StreamingResponse(chunks())

        exchange = Exchange("/stream")
        application = make_app(streaming)
        with captured_log() as lines, pytest.raises(RuntimeError, match="midway"):
            await exchange.run(application)
        assert (exchange.status, exchange.complete) == (200, False)
        assert "midway" in lines.one("request")["exception"]
