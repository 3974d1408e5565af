"""HTTP connections with limits on head size and client slowness; a client that leaves cancels its GET."""

import asyncio
import inspect
import resource
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.core.process import lifecycle

REQUEST_SECONDS = 1.5
LINGER_SECONDS = 1.0
"""Time to go on reading a refused connection: closing it at once would reset it, and the answer would be lost."""

MAX_HEAD_SIZE = 64 * 1024
MAX_FIELDS = 100
MIN_BODY_RATE = 500
"""Lowest average rate of a body, in bytes a second, once `CLIENT_TIMEOUT_SECONDS` have passed."""

_FILES, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
MAX_CONNECTIONS = 2**31 if _FILES == resource.RLIM_INFINITY else max(1, _FILES - max(64, _FILES // 4))
"""Most connections before the slowest clients are cut; the other descriptors are for the database and files."""

ARRIVED_AT = "kit.arrived_at"  # what app.core.api.middlewares reads; see _refuse for why it is not imported

_NOT_HTTP = (HTTPStatus.BAD_REQUEST, "bad_request", "The request is not valid HTTP.")
_LONG_TARGET = (HTTPStatus.REQUEST_URI_TOO_LONG, "uri_too_long", f"A URL may have {MAX_HEAD_SIZE} bytes at most.")
_LARGE_HEAD = (
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "header_too_large",
    f"A header section may have {MAX_HEAD_SIZE} bytes and {MAX_FIELDS} fields at most.",
)


_TOO_SLOW = (HTTPStatus.REQUEST_TIMEOUT, "request_timeout", "The request took too long to arrive.")


class _Refused(Exception):
    """Ends the parsing of a request that is too large before its body."""


class Connection(HttpToolsProtocol):
    """A connection that limits heads to `MAX_HEAD_SIZE`, refuses slow clients, and cancels the GET of one that leaves.

    Other methods write, and are finished. A shutdown leaves it open until its first request could arrive.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._size = 0  # of the request line and the fields that are complete
        self._fields = 0
        self._unseen = 0  # of what the parser keeps for itself: a field or a target that has not ended
        self._refusal: tuple[HTTPStatus, str, str] | None = None
        self._since = self.loop.time()  # when the wait for the client began
        self._body_size = 0
        self._answering: tuple[asyncio.Task[Any] | None, Scope] | None = None
        self._application, self.app = self.app, self._answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Cut the slowest clients if there are more than `MAX_CONNECTIONS`."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            others = [each for each in self.connections if isinstance(each, Connection) and each.keeps_waiting]
            others.sort(key=lambda each: each._since)
            for each in others[: len(others) // 10 + 1]:  # a tenth at once, so that a flood causes fewer sorts
                each.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the GET whose client has left."""
        super().connection_lost(exc)
        self.app = self._application  # breaks the reference cycle, so that memory is freed
        if self._answering and not self.cycle.response_started:
            task, scope = self._answering
            # A function that is not a coroutine goes on in its thread, and needs what is closed by the cancellation.
            if task and scope["method"] == "GET" and inspect.iscoroutinefunction(scope.get("endpoint")):
                task.cancel()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._answering = asyncio.current_task(), scope
        try:
            await self._application(scope, receive, send)
        except asyncio.CancelledError:  # the client has left, or the server stops: no error
            self.cycle.disconnected = True
            self.transport.close()

    @property
    def keeps_waiting(self) -> bool:
        """True while the service waits for the client to send."""
        if self.transport.is_closing() or self._refusal:
            return False
        if self._in_head:
            return self.cycle is None or self.cycle.response_complete
        return not (self.flow.read_paused or self.cycle.waiting_for_100_continue)

    def check(self, now: float, patience: float) -> None:
        """Refuse a client that takes longer than `patience` for a head or, at `MIN_BODY_RATE`, a body."""
        if not self.keeps_waiting:
            self._since, self._body_size = now, 0
        elif now - self._since > patience + self._body_size / MIN_BODY_RATE:
            if self._in_head and not self._unseen and not self._size:
                self.transport.close()  # no request has begun
            else:
                self._refuse(_TOO_SLOW)

    def data_received(self, data: bytes) -> None:
        """Parse the data; discard it once the connection is refused."""
        if self._refusal:
            return
        self._unseen += len(data)
        super().data_received(data)
        if self._unseen > MAX_HEAD_SIZE and not self._refusal:
            self._refuse(_LARGE_HEAD)

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._in_head, self._size, self._fields, self._unseen = True, 0, 0, 0
        self._since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Count a piece of the target."""
        self._count(len(url), _LONG_TARGET)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a field. Trailers are dropped: they are no headers (RFC 9110 section 6.5.1)."""
        self._fields += 1
        self._count(len(name) + len(value) + len(": \r\n"), _LARGE_HEAD)
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop counting: the head fits."""
        self._in_head, self._unseen = False, 0
        self._since, self._body_size = self.loop.time(), 0
        super().on_headers_complete()
        if self.cycle and lifecycle.grace_ends is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Bodies are limited by the application."""
        self._unseen = 0
        self._body_size += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Record when the request arrived, however late the service reads it, and wait for the next head."""
        scope: Any = self.scope
        scope[ARRIVED_AT] = datetime.now(UTC)
        self._in_head, self._size, self._unseen = True, 0, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Protect background work from being cancelled when the client leaves."""
        self._answering = None
        super().on_response_complete()

    def _count(self, size: int, refusal: tuple[HTTPStatus, str, str]) -> None:
        self._size += size
        if self._size > MAX_HEAD_SIZE or self._fields > MAX_FIELDS:
            self._refuse(refusal)
            raise _Refused

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        if not self._refusal:
            self._refuse(_NOT_HTTP)

    def _refuse(self, refusal: tuple[HTTPStatus, str, str]) -> None:
        """Answer with a problem and close; say nothing where that would be taken for another request's answer."""
        self._refusal = refusal
        if self.cycle and self.cycle.response_complete and not self._in_head:
            self.transport.close()  # answered before its body had arrived
            return
        if self.cycle and not self.cycle.response_complete:
            if self._in_head:
                self.cycle.keep_alive = False  # of the request before: its answer closes the connection
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started or self.pipeline:
                self.transport.close()
                return
        # Not above: importing them reads the settings.
        from app.core.api.problems import problem
        from app.core.metrics import count_request
        from app.core.services.log import logger

        status, code, detail = refusal
        client = self.client[0] if self.client else None
        count_request("", None, status, 0)
        logger.info("request", method=None, route=None, status=int(status), client=client, code=code)
        answer = problem({"type": "http", "path": ""}, status, code, detail)
        answer.headers["connection"] = "close"
        head = [STATUS_LINE[status], *(b"%s: %s\r\n" % field for field in answer.raw_headers), b"\r\n"]
        self.transport.write(b"".join(head) + bytes(answer.body))
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def shutdown(self) -> None:
        """Answer what was asked, or is within `REQUEST_SECONDS`, then close."""
        if self.cycle is None:
            self.loop.call_later(REQUEST_SECONDS, super().shutdown)
        else:
            super().shutdown()
