"""The HTTP client against servers that are slow, broken, greedy or busy."""

import asyncio
import gzip
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.configs.integrations import Integration
from app.core.deps import HttpClient as HttpClientDep
from app.core.deps import queued
from app.core.exceptions import RequestRefused, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from app.core.runtime import Runtime
from app.core.services.http import HttpClient
from app.core.services.http.client import retry_after
from app.core.services.log import correlation
from app.core.services.queue import BaseTask
from tests.core.api.conftest import Serve, serve  # noqa: F401  a fixture
from tests.core.log.capture import captured_log
from tests.core.services.http_servers import HttpServer, answer, drip, endless, hang, http_server, reset, surplus
from tests.utils import HttpStubs

pytestmark = pytest.mark.once

SECRET = "s3cr3t-of-a-partner"

Open = Callable[..., HttpClient]


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as found:
        yield found


@pytest.fixture
async def http(server: HttpServer) -> AsyncIterator[Open]:
    """`http(retries=1, ...)`: a client whose integration `shop` is the server."""
    async with AsyncExitStack() as stack:

        def start(**fields: Any) -> HttpClient:
            made = HttpClient({"shop": Integration(base_url=server.url, **fields)})
            stack.push_async_callback(made.close)
            return made

        yield start


class TestRequest:
    async def test_sends_what_is_given_and_the_ids(self, server: HttpServer, http: Open) -> None:
        server.play("/charges/a%2Fb", answer(body=b'{"paid": true}'))
        with correlation("r1", "c1"):
            found = await http(bearer=SECRET, headers={"X-Shop": "7"}).post(
                "shop", "/charges/{id}", path_params={"id": "a/b"}, params={"q": "1 2"}, json={"n": 1}
            )
        assert found.json() == {"paid": True}
        [request] = server.received
        assert (request.method, request.target, request.body) == ("POST", "/charges/a%2Fb?q=1+2", b'{"n":1}')
        wanted = {"authorization": f"Bearer {SECRET}", "x-shop": "7", "x-request-id": "r1", "x-conversation-id": "c1"}
        assert {name: request.headers[name] for name in wanted} == wanted

    async def test_basic(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer())
        await http(basic="ann:password").get("shop", "/")
        assert server.received[0].headers["authorization"] == "Basic YW5uOnBhc3N3b3Jk"

    @pytest.mark.parametrize("value", ["", ".", ".."])
    async def test_a_parameter_leads_to_no_other_path(self, http: Open, value: str) -> None:
        with pytest.raises(RequestRefused):
            await http().get("shop", "/charges/{id}/refund", path_params={"id": value})

    @pytest.mark.parametrize("path", ["@evil.example/", "http://evil.example/", ".evil.example/", ":1@x/"])
    async def test_a_path_leads_to_no_other_host(self, http: Open, path: str) -> None:
        with pytest.raises(ValueError, match="must begin with /"):
            await http(bearer=SECRET).get("shop", path)

    async def test_two_slashes_stay_with_the_host(self, server: HttpServer, http: Open) -> None:
        server.play("//evil.example/", answer())
        await http(bearer=SECRET).get("shop", "//evil.example/")
        assert server.received[0].headers["host"] == server.url.removeprefix("http://")

    async def test_a_header_that_is_two_is_refused(self, server: HttpServer, http: Open) -> None:
        for value in ("1\r\nX-Admin: yes", "snow ☃"):
            with pytest.raises(RequestRefused):
                await http().get("shop", "/", headers={"X-Name": value})
        assert server.received == []

    @pytest.mark.parametrize(
        "headers",
        [
            {"content-length": "5"},
            {"Transfer-Encoding": "chunked", "Content-Length": "0"},  # which two servers would read differently
            {"Host": "inside.example"},
        ],
    )
    async def test_headers_of_the_transfer_are_not_the_callers(
        self, server: HttpServer, http: Open, headers: dict[str, str]
    ) -> None:
        server.play("/", answer())
        with pytest.raises(RequestRefused):
            await http().post("shop", "/", headers=headers, json={"n": 1})
        assert server.received == []

    async def test_a_refused_header_is_not_quoted(self, http: Open) -> None:
        with pytest.raises(RequestRefused) as caught:
            await http().get("shop", "/", headers={"X-Api-Key": f"{SECRET}\n"})
        assert SECRET not in "".join(traceback.format_exception(caught.value))

    async def test_cookies_are_not_kept_for_the_next_caller(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(Set_Cookie="session=ann; Path=/"))
        client = http()
        for _ in range(2):
            await client.get("shop", "/")
        assert "cookie" not in server.received[1].headers

    async def test_an_unknown_integration_is_named(self, http: Open) -> None:
        with pytest.raises(LookupError, match="HTTP_INTEGRATIONS has no 'post'"):
            await http().get("post", "/")

    async def test_connections_are_kept_and_closed_in_the_end(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer())
        client = http()
        await client.get("shop", "/")
        pool = client._upstreams["shop"].transport._pool  # type: ignore[attr-defined]
        assert len(pool.connections) == 1
        await client.close()
        assert pool.connections == []


class TestFailures:
    async def test_an_error_status_is_an_error_unless_expected(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(404, b"none"))
        with pytest.raises(UpstreamError) as caught:
            await http().get("shop", "/")
        assert (caught.value.status, caught.value.response.text) == (404, "none")
        assert (await http().get("shop", "/", expected={404})).status_code == 404

    async def test_a_server_that_says_nothing(self, server: HttpServer, http: Open) -> None:
        server.play("/", hang)
        with pytest.raises(UpstreamTimeout):
            await http(read_timeout=0.05, retries=1).get("shop", "/")
        assert len(server.received) == 2

    async def test_a_body_that_drips_ends_with_the_total(self, server: HttpServer, http: Open) -> None:
        server.play("/", drip)
        with pytest.raises(UpstreamTimeout):
            await http(total_timeout=0.3).get("shop", "/")
        with pytest.raises(UpstreamTimeout):
            await http().get("shop", "/", timeout=0.1)

    async def test_a_body_without_end(self, server: HttpServer, http: Open) -> None:
        server.play("/", endless)
        with pytest.raises(UpstreamError, match="too large"):
            await http(max_response_size=100_000).get("shop", "/")
        assert len(server.received) == 1

    @pytest.mark.parametrize("coding", ["gzip", "gzip, gzip"])
    async def test_a_small_answer_that_unpacks_to_a_large_one(
        self, server: HttpServer, http: Open, coding: str
    ) -> None:
        packed = b"\0" * 20_000_000
        for _ in coding.split(","):
            packed = gzip.compress(packed)
        server.play("/", answer(body=packed, Content_Encoding=coding))
        with pytest.raises(UpstreamError, match="too large"):
            await http(max_response_size=2_000_000).get("shop", "/")

    async def test_what_follows_a_packed_body_is_bounded_too(self, server: HttpServer, http: Open) -> None:
        server.play("/", surplus)
        client = http(max_response_size=1_000_000, max_connections=1)
        for _ in range(2):  # the connection of the first is free again
            with pytest.raises(UpstreamError, match="too large"):
                await client.get("shop", "/")

    async def test_an_answer_that_is_no_json(self, server: HttpServer, http: Open) -> None:
        for body in (b"<html>", b"[" * 100_000, b"\xff"):
            server.play("/", answer(body=body))
            with pytest.raises(UpstreamError):
                (await http().get("shop", "/")).json()

    @pytest.mark.parametrize("charset", ["zlib_codec", "idna", "punycode", "rot13", "undefined", "none"])
    async def test_a_text_in_what_is_no_charset_is_read_as_utf_8(
        self, server: HttpServer, http: Open, charset: str
    ) -> None:
        server.play("/", answer(body="é".encode(), Content_Type=f"text/plain; charset={charset}"))
        assert (await http().get("shop", "/")).text == "é"

    async def test_a_text_is_read_in_its_charset(self, server: HttpServer, http: Open) -> None:
        for charset in ("ISO-8859-1", "windows-1252", "UTF-16", "euc_jp", "latin1"):
            server.play("/", answer(body="o".encode(charset), Content_Type=f'text/plain; charset="{charset}"'))
            assert (await http().get("shop", "/")).text == "o"

    async def test_headers_of_any_bytes_are_answered(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(X_Name="Jörg 💩"))
        assert (await http().get("shop", "/")).headers["X-Name"].startswith("J")

    async def test_what_fits_is_unpacked(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(body=gzip.compress(b'{"a": 1}'), Content_Encoding="gzip"))
        assert (await http().get("shop", "/")).json() == {"a": 1}

    @pytest.mark.parametrize("coding", ["gzip", "gzip, " * 50 + "gzip"])
    async def test_what_cannot_be_unpacked(self, server: HttpServer, http: Open, coding: str) -> None:
        server.play("/", answer(body=b"no gzip", Content_Encoding=coding))
        with pytest.raises(UpstreamError):
            await http(retries=0).get("shop", "/")

    async def test_nothing_listens(self) -> None:
        async with http_server() as gone:
            url = gone.url
        client = HttpClient({"shop": Integration(base_url=url, retries=0)})
        with pytest.raises(UpstreamError):
            await client.get("shop", "/")


class TestRetries:
    async def test_until_it_answers(self, server: HttpServer, http: Open) -> None:
        server.play("/", reset, answer(503), answer(body=b"1"))
        assert (await http().get("shop", "/")).text == "1"
        assert len(server.received) == 3

    async def test_what_repeating_would_do_twice_is_sent_once(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(503))
        with pytest.raises(UpstreamUnavailable):
            await http().post("shop", "/")
        assert len(server.received) == 1

    async def test_with_a_key_it_may_be_repeated(self, server: HttpServer, http: Open) -> None:
        server.play("/", reset, answer())
        await http().post("shop", "/", json={"n": 1}, idempotency_key="k1")
        assert [(one.headers["idempotency-key"], one.body) for one in server.received] == [("k1", b'{"n":1}')] * 2

    @pytest.mark.parametrize("status", [400, 404, 409, 500, 501])
    async def test_what_a_second_try_would_not_change(self, server: HttpServer, http: Open, status: int) -> None:
        server.play("/", answer(status))
        with pytest.raises(UpstreamError):
            await http().get("shop", "/")
        assert len(server.received) == 1

    async def test_retry_after_is_waited_for(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(503, Retry_After="1"), answer())
        begun = asyncio.get_running_loop().time()
        await http().get("shop", "/")
        assert asyncio.get_running_loop().time() - begun >= 1

    async def test_one_beyond_the_deadline_is_told_at_once(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(429, Retry_After="999999"))
        async with asyncio.timeout(20):
            with pytest.raises(UpstreamUnavailable) as caught:
                await http().get("shop", "/")
        assert caught.value.retry_after == 3600
        assert len(server.received) == 1

    @pytest.mark.parametrize(
        "given",
        ["", "soon", "-1", "1.5", "Mon, 99 Foo 2026", "²", "9" * 5000, "Mon, 1 Jan 99999999999999999999 1:2 GMT"],
    )
    def test_what_says_no_time_is_none_or_bounded(self, given: str) -> None:
        headers = {b"Retry-After": given.encode()}
        assert retry_after(httpx2.Response(503, headers=headers)) in (None, 3600)

    def test_a_date_is_read(self) -> None:
        past = httpx2.Response(503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
        future = httpx2.Response(503, headers={"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"})
        assert (retry_after(past), retry_after(future)) == (0, 3600)


class TestBreaker:
    async def test_opens_and_closes_by_a_single_probe(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(500))
        client = http(breaker_failures=2, breaker_seconds=0.3)
        for _ in range(2):
            with pytest.raises(UpstreamError):
                await client.get("shop", "/")
        with pytest.raises(UpstreamUnavailable) as caught:
            await client.get("shop", "/")
        assert caught.value.retry_after == 1
        assert len(server.received) == 2
        await asyncio.sleep(0.35)

        server.play("/", hang)
        probe = asyncio.create_task(client.get("shop", "/"))
        while len(server.received) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        with pytest.raises(UpstreamUnavailable):
            await client.get("shop", "/")
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)

        server.play("/", answer())  # a probe that was cancelled leaves room for the next
        await client.get("shop", "/")
        assert len(await asyncio.gather(*(client.get("shop", "/") for _ in range(5)))) == 5

    async def test_a_probe_that_fails_opens_again(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(500))
        client = http(breaker_failures=1, breaker_seconds=0.2)
        for received in (1, 2):
            with pytest.raises(UpstreamError):
                await client.get("shop", "/")
            with pytest.raises(UpstreamUnavailable):
                await client.get("shop", "/")
            assert len(server.received) == received
            await asyncio.sleep(0.25)

    async def test_a_service_that_hangs_opens_it(self, server: HttpServer, http: Open) -> None:
        server.play("/", hang)
        client = http(breaker_failures=1, total_timeout=0.05)
        with pytest.raises(UpstreamTimeout):
            await client.get("shop", "/")
        with pytest.raises(UpstreamUnavailable):
            await client.get("shop", "/")

    async def test_a_caller_in_a_hurry_says_nothing_of_the_service(self, server: HttpServer, http: Open) -> None:
        server.play("/slow", hang)
        server.play("/", answer(body=b"1"))
        client = http(breaker_failures=1)
        for seconds in (0.05, -1):
            with pytest.raises(UpstreamTimeout):
                await client.get("shop", "/slow", timeout=seconds)
        assert (await client.get("shop", "/")).text == "1"

    async def test_a_pool_that_is_full_says_nothing_of_the_service(self, server: HttpServer, http: Open) -> None:
        server.play("/hang", hang)
        server.play("/", answer(500))
        client = http(breaker_failures=2, max_connections=1, retries=0)
        with pytest.raises(UpstreamError):
            await client.get("shop", "/")
        busy = asyncio.create_task(client.get("shop", "/hang"))
        while len(server.received) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        upstream = client._upstreams["shop"]
        upstream._timeout = httpx2.Timeout(5, pool=0.05)
        with pytest.raises(UpstreamUnavailable):
            await client.get("shop", "/")
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
        with pytest.raises(UpstreamError):
            await client.get("shop", "/")
        with pytest.raises(UpstreamUnavailable):  # the second outage in a row
            await client.get("shop", "/")
        assert len(server.received) == 3

    async def test_refusals_do_not_open_it(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(400))
        client = http(breaker_failures=1)
        for _ in range(3):
            with pytest.raises(UpstreamError):
                await client.get("shop", "/")
        assert len(server.received) == 3


class TestRedirects:
    async def test_none_is_followed_unless_allowed(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(302, Location="/there"))
        assert (await http().get("shop", "/")).status_code == 302

    async def test_within_the_service_with_credentials(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(303, Location="/there?x=1"))
        server.play("/there", answer(body=b"1"))
        assert (await http(redirects=1, bearer=SECRET).post("shop", "/", json={})).text == "1"
        second = server.received[1]
        assert (second.method, second.target, second.body) == ("GET", "/there?x=1", b"")
        assert second.headers["authorization"] == f"Bearer {SECRET}"
        assert "content-type" not in second.headers

    async def test_a_body_is_sent_again_where_the_method_stays(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(307, Location="/there"))
        server.play("/there", answer())
        await http(redirects=1).post("shop", "/", json={"n": 1})
        assert (server.received[1].method, server.received[1].body) == ("POST", b'{"n":1}')

    async def test_never_to_another_service(self, server: HttpServer, http: Open) -> None:
        async with http_server() as other:
            server.play("/", answer(302, Location=f"{other.url}/"))
            with pytest.raises(UpstreamError, match="to another host"):
                await http(redirects=3, bearer=SECRET).get("shop", "/")
            assert other.received == []

    @pytest.mark.parametrize(
        "location", ["http://[::1", "//", "javascript:alert(1)", "http://\x01", "http://x:99999/", "http://%xn--a/"]
    )
    async def test_one_to_nowhere(self, server: HttpServer, http: Open, location: str) -> None:
        server.play("/", answer(302, Location=location))
        with pytest.raises(UpstreamError):
            await http(redirects=1, retries=0).get("shop", "/")

    async def test_a_circle_ends(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(302, Location="/"))
        with pytest.raises(UpstreamError, match="too often"):
            await http(redirects=3).get("shop", "/")
        assert len(server.received) == 4


class TestLog:
    async def test_one_line_a_call_without_query_body_or_secret(self, server: HttpServer, http: Open) -> None:
        server.play("/charges/7", answer(503), answer())
        with captured_log() as lines:
            await http(bearer=SECRET, headers={"X-Shop": SECRET}).put(
                "shop", "/charges/{id}", path_params={"id": 7}, params={"q": SECRET}, json={"card": SECRET}
            )
            line = lines.one("http call")
            assert SECRET not in lines.text
            assert [each["event"] for each in map(dict, lines.all())] == ["http call"]
        assert line.pop("duration_ms") > 0
        line.pop("timestamp")
        assert line == {
            "level": "info",
            "event": "http call",
            "integration": "shop",
            "method": "PUT",
            "host": "127.0.0.1",
            "path": "/charges/{id}",
            "status": 200,
            "attempts": 2,
            "error": None,
        }

    async def test_a_failure_is_a_warning(self, server: HttpServer, http: Open) -> None:
        server.play("/", answer(404))
        with captured_log() as lines, pytest.raises(UpstreamError):
            await http().get("shop", "/?q=1")
        line = lines.one("http call")
        assert (line["level"], line["status"], line["error"], line["path"]) == ("warning", 404, "UpstreamError", "/")


router = APIRouter()


@router.get("/price")
async def price(http: HttpClientDep) -> int:
    return int((await http.get("shop", "/price")).json())


@queued
class FetchPrice(BaseTask):
    __task_name__ = "test.fetch_price"

    async def run(self, http: HttpClientDep) -> int:
        return int((await http.get("shop", "/price")).json())


URL = "https://shop.example/price"


class TestDependency:
    @pytest.fixture(autouse=True)
    def _shop(self, http_stubs: HttpStubs) -> None:
        http_stubs.integration("shop", base_url="https://shop.example", retries=0)

    async def test_in_a_route_and_a_task(
        self,
        db: AsyncSession,
        serve: Serve,  # noqa: F811
        http_stubs: HttpStubs,
        kit: Runtime,
        drain: Callable[[], Any],
    ) -> None:
        http_stubs.respond("GET", URL, json=7)
        answered = await (await serve(router)).get("/price", headers={"X-Request-ID": "r1"})
        assert answered.json() == 7
        assert http_stubs.requests[0].headers["X-Request-ID"] == "r1"
        job_id = await kit.queue.push(FetchPrice)
        await drain()
        assert await kit.queue.get_result(job_id or 0) == 7

    @pytest.mark.parametrize(
        ("status", "headers", "answered", "code"),
        [
            (404, {}, 502, "upstream_failed"),
            (500, {}, 502, "upstream_failed"),
            (503, {"Retry-After": "7"}, 503, "upstream_unavailable"),
            (429, {"Retry-After": "7"}, 503, "upstream_unavailable"),
        ],
    )
    async def test_failures_are_problems(
        self,
        db: AsyncSession,
        serve: Serve,  # noqa: F811
        http_stubs: HttpStubs,
        status: int,
        headers: dict[str, str],
        answered: int,
        code: str,
    ) -> None:
        http_stubs.respond("GET", URL, status, content=SECRET.encode(), headers=headers)
        found = await (await serve(router)).get("/price")
        assert (found.status_code, found.json()["code"]) == (answered, code)
        assert found.headers.get("Retry-After") == headers.get("Retry-After")
        assert SECRET not in found.text

    @pytest.mark.parametrize(
        ("error", "answered"), [(httpx2.ReadTimeout("late"), 504), (httpx2.ConnectError(SECRET), 502)]
    )
    async def test_no_answer_is_a_problem(
        self,
        db: AsyncSession,
        serve: Serve,  # noqa: F811
        http_stubs: HttpStubs,
        error: Exception,
        answered: int,
    ) -> None:
        http_stubs.fail("GET", URL, error)
        found = await (await serve(router)).get("/price")
        assert found.status_code == answered
        assert SECRET not in found.text


class TestStubs:
    async def test_what_is_not_stubbed_is_refused(self) -> None:
        stubs = HttpStubs()
        stubs.integration("shop", base_url="https://shop.example")
        with pytest.raises(AssertionError, match="not stubbed: GET https://shop"):
            await stubs.client.get("shop", "/price")
        assert stubs.refused == ["GET https://shop.example/price"]

    async def test_retries_are_real(self, http_stubs: HttpStubs) -> None:
        http_stubs.integration("shop", base_url="https://shop.example")
        http_stubs.fail("GET", URL, httpx2.ConnectError("refused"))
        http_stubs.respond("GET", URL, json=1)
        assert (await http_stubs.client.get("shop", "/price")).json() == 1
