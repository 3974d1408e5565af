"""One request by hand, for what no client library does: leaving early, sending in pieces."""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message


class Exchange:
    """What one request sends and gets. After the `sent` messages the client stays silent, or leaves if `leaves`."""

    def __init__(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        sent: list[Message] | None = None,
        leaves: bool = False,
    ) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"token=hunter2",
            "root_path": "",
            "scheme": "http",
            "headers": [
                (name.lower().encode(), value.encode()) for name, value in {"host": "test", **(headers or {})}.items()
            ],
            "client": ("192.0.2.1", 50000),
            "server": ("test", 80),
            "state": {},
        }
        self.received: list[Message] = []
        self.unsent = [{"type": "http.request", "body": b"", "more_body": False}] if sent is None else list(sent)
        self._leaves = leaves

    async def run(self, app: ASGIApp) -> None:
        """Send the request and read the whole answer."""
        await app(self.scope, self._receive, self._send)

    @property
    def status(self) -> int | None:
        """The status that came, if any."""
        return next((m["status"] for m in self.received if m["type"] == "http.response.start"), None)

    @property
    def headers(self) -> dict[str, str]:
        """Those of the answer; of several of one name, the last."""
        start = next(m for m in self.received if m["type"] == "http.response.start")
        return {name.decode().lower(): value.decode() for name, value in start["headers"]}

    @property
    def complete(self) -> bool:
        """Whether the last piece came."""
        return any(m["type"] == "http.response.body" and not m.get("more_body") for m in self.received)

    @property
    def body(self) -> bytes:
        """What came so far."""
        return b"".join(m.get("body", b"") for m in self.received if m["type"] == "http.response.body")

    async def _receive(self) -> Message:
        if self.unsent:
            return self.unsent.pop(0)
        if not self._leaves:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.received.append(message)


class WebSocketExchange:
    """One websocket: connects, sends `texts`, leaves."""

    def __init__(self, path: str, *, client: str, texts: list[str]) -> None:
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "ws",
            "headers": [(b"host", b"test")],
            "client": (client, 50000),
            "server": ("test", 80),
            "subprotocols": [],
            "state": {},
            "extensions": {"websocket.http.response": {}},
        }
        self.received: list[dict[str, Any]] = []
        self._unsent: list[Message] = [
            {"type": "websocket.connect"},
            *({"type": "websocket.receive", "text": text} for text in texts),
        ]

    async def run(self, app: ASGIApp) -> None:
        """Say everything and read every message that comes."""
        await app(self.scope, self._receive, self._send)

    async def _receive(self) -> Message:
        return self._unsent.pop(0) if self._unsent else {"type": "websocket.disconnect", "code": 1000}

    async def _send(self, message: Message) -> None:
        self.received.append(dict(message))
