"""The HTTP client: limits, retries and logging around httpx2's transports, with one pool for each integration."""

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from random import SystemRandom
from typing import Any, Unpack
from urllib.parse import quote

import httpx2

from app.core.configs.integrations import Integration
from app.core.db.base import utcnow
from app.core.exceptions import RequestRefused, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from app.core.services.http.breaker import CircuitBreaker
from app.core.services.http.guard import GuardedTransport, check_url
from app.core.services.http.interface import HttpClientInterface, RequestOptions
from app.core.services.log import logger
from app.core.services.log.context import CONVERSATION_ID, REQUEST_ID, conversation_id, request_id

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 9.2.2
RETRIABLE_STATUSES = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may succeed."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
FRAMING = frozenset({"host", "content-length", "transfer-encoding"})
"""Headers that say whom a request is for and where it ends: not the caller's to choose."""
_TEXT_CHARSET = re.compile(r"(utf|us-ascii|iso-|latin|windows-|euc|gb|big5|shift_jis|koi8)[a-z0-9_-]*")

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
LONGEST_RETRY_AFTER_SECONDS = 3600
MAX_BREAKERS = 1000
PACKING_SIZE = 64 * 1024
"""Bytes by which a compressed answer may be longer than its content."""

_random = SystemRandom()


def open_transport(integration: Integration) -> httpx2.AsyncBaseTransport:
    """Make the connection pool of an integration; it connects at the first use."""
    if integration.guarded:
        return GuardedTransport(integration)
    most = integration.max_connections
    return httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=most, max_keepalive_connections=most))


@dataclass
class Call:
    """One call: the request, how it may be sent, and the number of attempts so far."""

    request: httpx2.Request
    deadline: float
    is_idempotent: bool
    may_cross_hosts: bool
    """True without credentials or headers of the caller: then it may be redirected to another host."""
    expected: Collection[int]
    is_hurried: bool
    """True if the caller set the deadline: to miss it says nothing of the service."""
    attempts: int = 0


class HttpClient(HttpClientInterface):
    """Calls integrations, each through a pool of its own, made at the first call."""

    def __init__(
        self,
        integrations: Mapping[str, Integration],
        open_transport: Callable[[Integration], httpx2.AsyncBaseTransport] = open_transport,
    ) -> None:
        self._integrations = integrations
        self._open_transport = open_transport
        self._upstreams: dict[str, Upstream] = {}

    async def request(
        self, integration: str, method: str, path: str, **options: Unpack[RequestOptions]
    ) -> httpx2.Response:
        upstream = self._upstream(integration)
        call = upstream.call(method, path, options)
        begun, status, error = time.perf_counter(), None, None
        try:
            response = await upstream.send(call)
            status = response.status_code
            return response
        except BaseException as exc:
            status, error = getattr(exc, "status", None), type(exc).__name__
            raise
        finally:
            (logger.warning if error else logger.info)(
                "http call",
                integration=integration,
                method=call.request.method,
                host=call.request.url.raw_host.decode(),  # `host` raises for some names
                # Not the path of a URL that a user gave: it may be a secret, as in chat webhooks.
                path=path.partition("?")[0] if upstream.integration.base_url else None,
                status=status,
                duration_ms=round((time.perf_counter() - begun) * 1000, 2),
                attempts=call.attempts,
                error=error,
            )

    async def close(self) -> None:
        """Close the pools."""
        upstreams, self._upstreams = self._upstreams, {}
        for upstream in upstreams.values():
            await upstream.transport.aclose()

    def _upstream(self, name: str) -> "Upstream":
        if name not in self._upstreams:
            if name not in self._integrations:
                raise LookupError(f"HTTP_INTEGRATIONS has no {name!r}")
            integration = self._integrations[name]
            self._upstreams[name] = Upstream(name, integration, self._open_transport(integration))
        return self._upstreams[name]


class Upstream:
    """An integration with its pool and its circuit breakers."""

    def __init__(self, name: str, integration: Integration, transport: httpx2.AsyncBaseTransport) -> None:
        self.name = name
        self.integration = integration
        self.transport = transport
        connect, read = integration.connect_timeout, integration.read_timeout
        self._timeout = httpx2.Timeout(read, connect=connect, pool=connect)
        self._breakers: dict[str, CircuitBreaker] = {}

    def call(self, method: str, path: str, options: RequestOptions) -> Call:
        """Build a call from these options; raises RequestRefused if they make no valid request."""
        url = self._url(path, options.get("path_params") or {})
        given = dict(options.get("headers") or {})
        if key := options.get("idempotency_key"):
            given["Idempotency-Key"] = key
        if not FRAMING.isdisjoint(map(str.lower, given)):
            raise RequestRefused
        try:
            request = httpx2.Request(
                method.upper(),
                url,
                params=options.get("params"),
                headers=self._headers(given),
                json=options.get("json"),
                data=options.get("data"),
                content=options.get("content"),
                extensions={"timeout": self._timeout.as_dict()},
            )
        except (httpx2.InvalidURL, ValueError) as exc:  # malformed names, headers and numbers
            raise RequestRefused from exc
        return Call(
            request,
            deadline=asyncio.get_running_loop().time() + options.get("timeout", self.integration.total_timeout),
            is_idempotent=request.method in IDEMPOTENT or "Idempotency-Key" in request.headers,
            may_cross_hosts=not (given or request.content or self.integration.has_credentials),
            expected=options.get("expected", ()),
            is_hurried="timeout" in options,
        )

    def _url(self, path: str, path_params: Mapping[str, str | int]) -> str:
        """Return the URL of `path`, with its parameters quoted so that no value can change the path."""
        if self.integration.base_url is None:
            return path
        if not path.startswith("/"):  # `@elsewhere` or a whole URL would lead to another host
            raise ValueError(f"the path of a call to {self.name} must begin with /")
        quoted = {name: quote(str(value), safe="", errors="replace") for name, value in path_params.items()}
        if not {"", ".", ".."}.isdisjoint(quoted.values()):
            raise RequestRefused
        return str(self.integration.base_url).rstrip("/") + (path.format_map(quoted) if quoted else path)

    def _headers(self, given: Mapping[str, str]) -> httpx2.Headers:
        """Return the headers of a request: the caller's, credentials, and the ids of the current request or job."""
        headers = httpx2.Headers({"User-Agent": "fastapi-modulith", "Accept-Encoding": "gzip, deflate"})
        headers.update(given)
        if self.integration.base_url:  # ids are not sent to addresses from users
            ids = {REQUEST_ID: request_id(), CONVERSATION_ID: conversation_id()}
            headers.update({name: value for name, value in ids.items() if value})
        headers.update({name: value.get_secret_value() for name, value in self.integration.headers.items()})
        if bearer := self.integration.bearer:
            headers["Authorization"] = f"Bearer {bearer.get_secret_value()}"
        if basic := self.integration.basic:
            headers["Authorization"] = f"Basic {base64.b64encode(basic.get_secret_value().encode()).decode()}"
        return headers

    async def send(self, call: Call) -> httpx2.Response:
        """Send a request; retry it if that may help and is safe, until the deadline."""
        breaker = self._breaker(call.request.url)
        while True:
            try:
                with breaker.attempt():
                    call.attempts += 1
                    return await self._attempt(call)
            except UpstreamError as exc:
                longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**call.attempts)
                pause = _random.uniform(0, longest) + (exc.retry_after or 0)
                left = call.deadline - asyncio.get_running_loop().time()
                repeats = exc.is_transient and call.is_idempotent and call.attempts <= self.integration.retries
                if not repeats or pause >= left:
                    raise
            await asyncio.sleep(pause)

    def _breaker(self, url: httpx2.URL) -> CircuitBreaker:
        """Return the integration's breaker or, if it calls addresses from users, the one of this host."""
        key = "" if self.integration.base_url else url.netloc.decode()
        if key not in self._breakers:
            if len(self._breakers) >= MAX_BREAKERS:
                del self._breakers[next(iter(self._breakers))]
            made = CircuitBreaker(self.name, self.integration.breaker_failures, self.integration.breaker_seconds)
            self._breakers[key] = made
        return self._breakers[key]

    async def _attempt(self, call: Call) -> httpx2.Response:
        try:
            async with asyncio.timeout_at(call.deadline):
                response = await self._exchange(call)
        except httpx2.PoolTimeout as exc:  # our own pool is busy: no outage of the service
            raise UpstreamUnavailable(is_transient=True) from exc
        except TimeoutError as exc:
            raise UpstreamTimeout(is_outage=not call.is_hurried, is_transient=True) from exc
        except httpx2.TimeoutException as exc:
            raise UpstreamTimeout(is_outage=True, is_transient=True) from exc
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol):
            raise RequestRefused from None  # it quotes the value of a header
        except httpx2.RequestError as exc:
            raise UpstreamError(is_outage=True, is_transient=True) from exc
        status = response.status_code
        if status < 400 or status in call.expected:
            return response
        kind = UpstreamUnavailable if status in (429, 503) else UpstreamError
        raise kind(
            retry_after=retry_after(response),
            response=response,
            is_outage=status >= 500,
            is_transient=status in RETRIABLE_STATUSES,
        )

    async def _exchange(self, call: Call) -> httpx2.Response:
        request = call.request
        for hops_left in range(self.integration.redirects, -1, -1):
            if self.integration.guarded:
                check_url(request.url, self.integration.guarded_ports)
            response = await self._read(request)
            location = response.headers.get("Location")
            if response.status_code not in REDIRECTS or not location or not self.integration.redirects:
                return response
            if hops_left:
                try:
                    request = self._redirected(request, response.status_code, location, call)
                except (httpx2.InvalidURL, ValueError) as exc:
                    raise UpstreamError from exc
        raise UpstreamError("A required service redirects too often.")

    async def _read(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request once; return the answer with its decoded body, at most `max_response_size` bytes."""
        response = await self.transport.handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101  an asynchronous transport's
        most = self.integration.max_response_size
        try:
            # Bound the raw bytes too: the decoder keeps whatever follows the end of the compressed data.
            response.stream = _Bounded(response.stream, most + PACKING_SIZE)
            async with aclosing(response.aiter_bytes()) as chunks:
                body = b"".join([chunk async for chunk in _Bounded(chunks, most)])
        finally:
            await response.aclose()
        headers = [each for each in response.headers.raw if each[0].lower() not in _OF_THE_TRANSFER]
        return Answer(response.status_code, headers=headers, content=body, request=request)

    def _redirected(self, request: httpx2.Request, status: int, location: str, call: Call) -> httpx2.Request:
        """Return the redirected request. Only a plain GET or HEAD of a guarded integration may go to another host."""
        url = request.url.join(location)
        as_get = status == 303 or (status in (301, 302) and request.method == "POST")
        method = "GET" if as_get and request.method != "HEAD" else request.method
        old = request.url
        is_same = (url.scheme, url.raw_host, url.port) == (old.scheme, old.raw_host, old.port)
        if not is_same and not (self.integration.guarded and call.may_cross_hosts and method in ("GET", "HEAD")):
            raise UpstreamError("A required service redirects to another host.")
        dropped = {b"host", b"content-length", *((b"content-type",) if as_get else ())}
        headers = [each for each in request.headers.raw if each[0].lower() not in dropped]
        content = None if as_get else request.content
        return httpx2.Request(method, url, headers=headers, content=content, extensions=request.extensions)


class Answer(httpx2.Response):
    """The answer of another service, read completely."""

    @property
    def charset_encoding(self) -> str | None:
        """Return the announced charset if it is one of text: others of Python's codecs unpack, or never end."""
        announced = super().charset_encoding
        return announced if announced and _TEXT_CHARSET.fullmatch(announced) else None

    def json(self, **options: Any) -> Any:
        """Return the body as JSON; raises UpstreamError if it is not JSON."""
        try:
            return super().json(**options)
        except (ValueError, RecursionError) as exc:
            raise UpstreamError from exc


class _Bounded(httpx2.AsyncByteStream):
    """Passes on at most `most` bytes; more raise UpstreamError."""

    def __init__(self, chunks: AsyncIterable[bytes], most: int) -> None:
        self._chunks = chunks
        self._left = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            self._left -= len(chunk)
            if self._left < 0:
                raise UpstreamError("A required service sent too large an answer.")
            yield chunk

    async def aclose(self) -> None:
        if isinstance(self._chunks, httpx2.AsyncByteStream):
            await self._chunks.aclose()


_OF_THE_TRANSFER = (b"content-encoding", b"content-length", b"transfer-encoding")


def retry_after(response: httpx2.Response) -> int | None:
    """Return `Retry-After` in seconds, at most an hour; None if it is absent or malformed."""
    given = response.headers.get("Retry-After", "").strip()
    if given.isascii() and given.isdigit():
        return min(int(given[:9]), LONGEST_RETRY_AFTER_SECONDS)
    try:
        moment = parsedate_to_datetime(given)
    except (TypeError, ValueError, OverflowError):
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0, min(round((moment - utcnow()).total_seconds()), LONGEST_RETRY_AFTER_SECONDS))
