"""A uvicorn server that limits header sections and finishes pending requests on shutdown."""

import asyncio
import socket
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

ACCEPT_SECONDS = 0.1
REQUEST_SECONDS = 1.5
LINGER_SECONDS = 1.0
"""Time for which a refused connection is still read: closed at once it would be reset, and the answer lost."""

MAX_HEAD_SIZE = 64 * 1024
MAX_FIELDS = 100

ARRIVED_AT = "kit.arrived_at"  # what app.core.api.middlewares reads; see _refuse for why it is not imported

_NOT_HTTP = (HTTPStatus.BAD_REQUEST, "bad_request", "The request is not valid HTTP.")
_LONG_TARGET = (HTTPStatus.REQUEST_URI_TOO_LONG, "uri_too_long", f"A URL may have {MAX_HEAD_SIZE} bytes at most.")
_LARGE_HEAD = (
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "header_too_large",
    f"A header section may have {MAX_HEAD_SIZE} bytes and {MAX_FIELDS} fields at most.",
)


class _Refused(Exception):
    """Ends the parsing of a request that is too large before its body."""


class Connection(HttpToolsProtocol):
    """A connection that reads no more than `MAX_HEAD_SIZE` of what is not body.

    It is not closed before its first request could arrive.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._size = 0  # of the request line and the fields that are complete
        self._fields = 0
        self._unseen = 0  # of what the parser keeps for itself: a field or a target that has not ended
        self._refusal: tuple[HTTPStatus, str, str] | None = None

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
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Bodies are limited by the application."""
        self._unseen = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Record when the request arrived, however late the service reads it, and wait for the next head."""
        scope: Any = self.scope
        scope[ARRIVED_AT] = datetime.now(UTC)
        self._in_head, self._unseen = True, 0
        super().on_message_complete()

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
        if self.cycle and not self.cycle.response_complete:
            if self._in_head:
                self.cycle.keep_alive = False  # of the request before: its answer closes the connection
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started or self.pipeline:
                self.transport.close()
                return
        # Not above: uvicorn's supervisor stops a process that takes longer than 5 s to import this file.
        from app.core.api.problems import problem
        from app.core.services.log import logger

        status, code, detail = refusal
        client = self.client[0] if self.client else None
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


class Server(uvicorn.Server):
    """The server of a process that is the only one on its socket."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept pending connections, which closing the socket would reset, then stop as uvicorn does."""
        for listener in sockets or []:
            listener.listen(0)  # no new connection is queued
        await asyncio.sleep(ACCEPT_SECONDS)
        await super().shutdown(sockets)
