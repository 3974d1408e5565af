"""The guard for addresses that users give: what it refuses, at whatever hop, and what it connects to."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from app.core.configs.integrations import Integration
from app.core.exceptions import RequestRefused, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from app.core.services.http import HttpClient
from app.core.services.http.guard import GuardedTransport, is_public
from app.core.services.log import correlation
from tests.core.log.capture import captured_log
from tests.core.services.http_servers import HttpServer, answer, certificate, http_server, reset

pytestmark = pytest.mark.once

LOOPBACK = "127.0.0.1/32"


class Names:
    """A DNS of the test: each look-up of a name gets its next answer; the last repeats."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names = names
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self.names[host.partition(".")[0]]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with http_server() as found:
        found.play("/", answer())
        yield found


@pytest.fixture
async def guarded(server: HttpServer) -> AsyncIterator[Any]:
    """`guarded(names, redirects=1)`: a client whose integration `hooks` may go to the server, and to no other port."""
    async with AsyncExitStack() as stack:

        def start(names: Names | None = None, **fields: Any) -> HttpClient:
            given = {"guarded_allow": [LOOPBACK], "guarded_ports": [server.port], "retries": 0, **fields}
            integration = Integration(guarded=True, **given)
            lookup = (names.resolve,) if names else ()
            made = HttpClient({"hooks": integration}, open_transport=lambda each: GuardedTransport(each, *lookup))
            stack.push_async_callback(made.close)
            return made

        yield start


PRIVATE = [
    *["127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"],
    *["0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "239.1.1.1", "240.0.0.1", "192.0.0.192", "198.18.0.1"],
    *["192.0.2.1", "100.100.100.200", "168.63.129.16"],
    *["::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1"],
    *["::ffff:a00:1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::"],
    *["2002:808:808::", "2001:0:7f00:1::", "100::1", "5f00::1", "4000::1"],
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"]


class TestAddress:
    @pytest.mark.parametrize("address", PRIVATE)
    def test_what_is_not_for_everybody(self, address: str) -> None:
        assert not is_public(address)

    @pytest.mark.parametrize("address", PUBLIC)
    def test_what_is(self, address: str) -> None:
        assert is_public(address)


class TestConnection:
    @pytest.mark.parametrize(
        "host",
        [
            *["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "localhost.", "[::1]"],
            *["[::ffff:127.0.0.1]", "0", "LOCALHOST", "[::]", "169.254.169.254", "127。0。0。1"],
        ],
    )
    @pytest.mark.parametrize("scheme", ["http", "https"])
    async def test_no_spelling_of_a_private_address_is_called(
        self, server: HttpServer, guarded: Any, scheme: str, host: str
    ) -> None:
        with pytest.raises((RequestRefused, UpstreamError)) as caught:
            await guarded(guarded_allow=[]).get("hooks", f"{scheme}://{host}:{server.port}/")
        assert server.received == []
        assert isinstance(caught.value, RequestRefused) or host in ("0177.0.0.1", "localhost.", "127。0。0。1")

    @pytest.mark.parametrize(
        "url",
        [
            *[
                "ftp://127.0.0.1/",
                "file:///etc/passwd",
                "gopher://127.0.0.1:70/",
                "//127.0.0.1/",
                "/",
                "",
                "x",
                "http://",
            ],
            *["http://user:pw@127.0.0.1:{port}/", "http://127.0.0.1:22/", "http://127.0.0.1/", "https://127.0.0.1/"],
            *[
                "http://[::1",
                "http://127.0.0.1:99999/",
                "http://a b/",
                "http://\x00/",
                "http:///x",
                "http://..:{port}/",
            ],
        ],
    )
    async def test_what_is_no_address_of_a_web_server_is_refused(
        self, server: HttpServer, guarded: Any, url: str
    ) -> None:
        with pytest.raises((RequestRefused, UpstreamError)):
            await guarded().get("hooks", url.replace("{port}", str(server.port)))
        assert server.received == []

    async def test_one_private_address_among_public_ones_is_enough(self, server: HttpServer, guarded: Any) -> None:
        client = guarded(Names(shop=[["8.8.8.8", "10.0.0.1"]]))
        with pytest.raises(RequestRefused):
            await client.get("hooks", f"http://shop.example:{server.port}/")

    async def test_connects_to_the_address_that_was_judged(self, server: HttpServer, guarded: Any) -> None:
        names = Names(shop=[["127.0.0.1"], ["169.254.169.254"]])
        client = guarded(names)
        url = f"http://shop.example:{server.port}/"
        for _ in range(2):  # the second on the connection that is open
            await client.get("hooks", url)
        assert names.asked == ["shop.example"]
        assert server.received[0].headers["host"] == f"shop.example:{server.port}"
        server.play("/", reset)
        with pytest.raises(UpstreamError):
            await client.get("hooks", url)
        with pytest.raises(RequestRefused):  # a new connection is judged anew
            await client.get("hooks", url)

    async def test_an_address_that_does_not_answer_is_followed_by_the_next(
        self, server: HttpServer, guarded: Any
    ) -> None:
        client = guarded(Names(shop=[["127.0.0.9", "127.0.0.1"]]), guarded_allow=["127.0.0.0/8"])
        assert (await client.get("hooks", f"http://shop.example:{server.port}/")).status_code == 200

    async def test_a_name_that_does_not_exist(self, guarded: Any, server: HttpServer) -> None:
        class NoNames(Names):
            async def resolve(self, host: str, port: int) -> Sequence[str]:
                raise OSError("no such name")

        with pytest.raises(UpstreamError):
            await guarded(NoNames()).get("hooks", f"http://shop.example:{server.port}/")

    async def test_a_slow_name_server_has_a_bound(self, guarded: Any, server: HttpServer) -> None:
        class SlowNames(Names):
            async def resolve(self, host: str, port: int) -> Sequence[str]:
                await asyncio.sleep(600)
                return []

        with pytest.raises(UpstreamTimeout):
            await guarded(SlowNames(), connect_timeout=0.1).get("hooks", f"http://shop.example:{server.port}/")

    async def test_names_that_hang_hold_up_no_other_work(
        self, guarded: Any, server: HttpServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answered, asked = threading.Event(), socket.getaddrinfo

        def slow(host: str, *given: Any, **named: Any) -> Any:
            if host == "slow.example":
                answered.wait(60)
            return asked(host, *given, **named)

        monkeypatch.setattr(socket, "getaddrinfo", slow)
        client = guarded(connect_timeout=0.2, max_connections=40)
        url = f"http://slow.example:{server.port}/"
        try:
            calls = [client.get("hooks", url) for _ in range(40)]
            found = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(each) for each in found} == {UpstreamTimeout}
            async with asyncio.timeout(30):
                await asyncio.get_running_loop().getaddrinfo("localhost", server.port)  # as for the database
        finally:
            answered.set()


class TestTLS:
    async def test_the_name_is_verified_though_the_address_is_pinned(
        self, guarded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trusted = certificate("shop.example", tmp_path)
        async with http_server(trusted) as server:
            server.play("/", answer(body=b"1"))
            names = Names(shop=[["127.0.0.1"]], other=[["127.0.0.1"]])
            with pytest.raises(UpstreamError):  # nobody has signed it
                await guarded(names, guarded_ports=[server.port]).get("hooks", f"https://shop.example:{server.port}/")
            monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
            client = guarded(names, guarded_ports=[server.port])
            assert (await client.get("hooks", f"https://shop.example:{server.port}/")).text == "1"
            with pytest.raises(UpstreamError):
                await client.get("hooks", f"https://other.example:{server.port}/")
            assert len(server.received) == 1


class TestRedirects:
    async def test_each_hop_is_judged(self, server: HttpServer, guarded: Any) -> None:
        names = Names(shop=[["127.0.0.1"]], inside=[["10.0.0.1"]])
        client = guarded(names, redirects=3)
        for target in (f"http://inside.example:{server.port}/", "http://127.0.0.1:22/", "file:///etc/passwd"):
            server.play("/", answer(302, Location=target))
            with pytest.raises((RequestRefused, UpstreamError)):
                await client.get("hooks", f"http://shop.example:{server.port}/")
        assert names.asked == ["shop.example", "inside.example"]

    @pytest.mark.parametrize(
        "location", ["https://xn--a%2f ..", "https://0x7f_xn--_/", "http://[::1", "http://x:99999/"]
    )
    async def test_one_to_nowhere(self, server: HttpServer, guarded: Any, location: str) -> None:
        server.play("/", answer(302, Location=location))
        with pytest.raises((RequestRefused, UpstreamError)):
            await guarded(redirects=1).get("hooks", f"{server.url}/")

    async def test_a_plain_get_goes_elsewhere(self, server: HttpServer, guarded: Any) -> None:
        client = guarded(Names(shop=[["127.0.0.1"]], other=[["127.0.0.1"]]), redirects=1)
        server.play("/", answer(302, Location=f"http://other.example:{server.port}/there"))
        server.play("/there", answer(body=b"1"))
        assert (await client.get("hooks", f"http://shop.example:{server.port}/")).text == "1"
        assert server.received[1].headers["host"] == f"other.example:{server.port}"

    @pytest.mark.parametrize("method", ["POST", "GET"])
    @pytest.mark.parametrize("given", [{"headers": {"webhook-signature": "v1,x"}}, {"json": {"secret": 1}}])
    async def test_what_was_meant_for_one_does_not(
        self, server: HttpServer, guarded: Any, method: str, given: dict[str, Any]
    ) -> None:
        client = guarded(Names(shop=[["127.0.0.1"]], other=[["127.0.0.1"]]), redirects=1)
        server.play("/", answer(307, Location=f"http://other.example:{server.port}/there"))
        with pytest.raises(UpstreamError, match="to another host"):
            await client.request("hooks", method, f"http://shop.example:{server.port}/", **given)
        assert len(server.received) == 1


class TestHosts:
    async def test_a_broken_one_does_not_close_the_others_out(self, server: HttpServer, guarded: Any) -> None:
        client = guarded(Names(good=[["127.0.0.1"]], bad=[["127.0.0.1"]]), breaker_failures=1)
        server.play("/bad", answer(500))
        with pytest.raises(UpstreamError):
            await client.get("hooks", f"http://bad.example:{server.port}/bad")
        with pytest.raises(UpstreamUnavailable):
            await client.get("hooks", f"http://bad.example:{server.port}/bad")
        assert (await client.get("hooks", f"http://good.example:{server.port}/")).status_code == 200

    async def test_strangers_learn_no_ids_and_their_paths_are_not_logged(
        self, server: HttpServer, guarded: Any
    ) -> None:
        server.play("/services/T0/s3cr3t", answer())
        with captured_log() as lines, correlation("r1", "c1"):
            await guarded().post("hooks", f"{server.url}/services/T0/s3cr3t", json={})
        assert not {"x-request-id", "x-conversation-id"} & server.received[0].headers.keys()
        assert "s3cr3t" not in lines.text
        assert (lines.one("http call")["host"], lines.one("http call")["path"]) == ("127.0.0.1", None)
