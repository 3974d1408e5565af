"""Clients of an application in this process, for HTTP and websockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.types import ASGIApp, Message
from starlette.websockets import WebSocketDisconnect

WAIT_SECONDS = 30
"""How long a websocket waits for the next message of the application."""


class Client(httpx.AsyncClient):
    """An httpx client of the application; its headers, such as Authorization, go with websockets too."""

    def __init__(self, app: ASGIApp, **given: Any) -> None:
        self._asgi = httpx.ASGITransport(app, raise_app_exceptions=False, client=("192.0.2.1", 50000))
        super().__init__(transport=self._asgi, base_url="http://test", **given)
        self._app = app

    def call_from(self, address: str) -> None:
        """Have the requests from now on come from this address."""
        self._asgi.client = (address, 50000)

    @asynccontextmanager
    async def websocket(self, path: str, **given: Any) -> AsyncIterator["Socket"]:
        """Open a websocket; `given` is what `get` takes. One that is refused raises httpx.HTTPStatusError."""
        request = self.build_request("GET", path, **given)
        socket = Socket(self._app, request)
        try:
            await socket.open()
            yield socket
        finally:
            await socket.close()


class Socket:
    """The client's end of a websocket in the test's own event loop, so that it works with `db`."""

    def __init__(self, app: ASGIApp, request: httpx.Request) -> None:
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "path": request.url.path,
            "raw_path": request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "root_path": "",
            "scheme": "ws",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": ("192.0.2.1", 50000),
            "server": ("test", 80),
            "subprotocols": [],
            "state": {},
            "extensions": {"websocket.http.response": {}},
        }
        self._request = request
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self._received: asyncio.Queue[Message] = asyncio.Queue()
        self._running = asyncio.ensure_future(app(scope, self._sent.get, self._received.put))

    async def open(self) -> None:
        """Connect; raises httpx.HTTPStatusError with the answer of a refusal."""
        self._sent.put_nowait({"type": "websocket.connect"})
        first = message = await self._next()
        if first["type"] == "websocket.accept":
            return
        body = b""
        while message.get("more_body", message["type"] == "websocket.http.response.start"):
            message = await self._next()
            body += message["body"]
        status = first.get("status", 403)
        answer = httpx.Response(status, headers=first.get("headers"), content=body, request=self._request)
        raise httpx.HTTPStatusError(f"refused with {status}", request=self._request, response=answer)

    def send_text(self, text: str) -> None:
        """Send a text."""
        self._sent.put_nowait({"type": "websocket.receive", "text": text})

    def send_json(self, value: Any) -> None:
        """Send a value as JSON."""
        self.send_text(json.dumps(value))

    async def receive_text(self) -> str:
        """Return the next text; raises WebSocketDisconnect where the application has closed."""
        message = await self._next()
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(message.get("code", 1000), message.get("reason"))
        text: str = message["text"]
        return text

    async def receive_json(self) -> Any:
        """Return the next text, read as JSON."""
        return json.loads(await self.receive_text())

    async def close(self) -> None:
        """Leave, and wait until the application has noticed."""
        self._sent.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait([self._running], timeout=WAIT_SECONDS)
        assert self._running.done(), "the application goes on although the client has left"

    async def _next(self) -> Message:
        """Return the next message of the application; raises what it raised instead of sending one."""
        message = asyncio.ensure_future(self._received.get())
        await asyncio.wait([message, self._running], timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if message.done():
            return message.result()
        message.cancel()
        if self._running.done():
            self._running.result()
        raise AssertionError("the application sent nothing more on this websocket")
