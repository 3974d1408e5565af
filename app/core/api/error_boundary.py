"""The layer that turns what nothing else handled into an answer, and lets none out before it can be relied on."""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.core.api.errors import EXC_INFO, close, failure
from app.core.services.background import PendingWork, pending_work
from app.core.services.log import logger

_DENIAL = "websocket.http.response"


class ErrorBoundary:
    """Answers what nothing else handled, inside the layers that add ids and headers; the access log shows it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            with pending_work() as pending:
                answer = _HeldAnswer(send, pending)
                try:
                    await self.app(scope, receive, answer.send)
                    await answer.release()
                except Exception as exc:
                    if answer.begun:
                        raise  # half an answer is out: only closing the connection tells the client
                    await answer.replace(await _answer_to(scope, answer.error or exc), scope, receive)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _Handshake(scope, send)
        try:
            await self.app(scope, receive, refusal.send)
        except WebSocketDisconnect:
            return  # raised by what waits for a message: the client has left, nothing failed
        except Exception as exc:
            answer = failure(scope, exc)
            logger.error("websocket failed", exc_info=scope[EXC_INFO])
            if not refusal.decided:
                await answer(scope, receive, refusal.send)
            elif refusal.is_open:
                await close(WebSocket(scope, receive, refusal.send), answer)


class _HeldAnswer:
    """Holds the start of an answer until its first byte, and until what the request left to be done is done.

    The start of an event stream is not held until the first event, which may be long in coming.
    """

    def __init__(self, send: Send, pending: PendingWork) -> None:
        self._send = send
        self._pending = pending
        self._start: Message | None = None
        self.begun = False
        self.error: Exception | None = None

    async def send(self, message: Message) -> None:
        if not self.begun:
            if message["type"] == "http.response.start":
                self._start = message
                if not _is_event_stream(message):
                    return
            elif _is_empty_chunk(message):
                return
            await self.release()
            if message is self._start:
                return
        await self._send(message)

    async def release(self) -> None:
        """Do the pending work, then let the start out. What fails here is the request's error."""
        if self._start is None or self.begun:
            return
        try:
            await self._pending.finish()
        except Exception as exc:
            self.error = exc  # Starlette, through which it passes, raises its own instead
            raise
        self.begun = True
        await self._send(self._start)

    async def replace(self, answer: ASGIApp, scope: Scope, receive: Receive) -> None:
        """Send this answer in the place of what was held."""
        if not self.error:
            try:
                await self._pending.finish()
            except Exception as exc:
                answer = failure(scope, exc)
        self.begun = True
        await answer(scope, receive, self._send)


class _Handshake:
    """Watches how a websocket begins. A refusal is a close where the server cannot send an answer."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._can_answer = _DENIAL in (scope.get("extensions") or {})
        self.decided = False
        self.is_open = False

    async def send(self, message: Message) -> None:
        kind: str = message["type"]
        if kind.startswith(_DENIAL) and not self._can_answer:
            if kind.endswith(".body"):
                return
            message = {"type": "websocket.close", "code": 1008}
        self.decided = True
        self.is_open = kind == "websocket.accept" or (self.is_open and kind != "websocket.close")
        await self._send(message)


async def _answer_to(scope: Scope, exc: Exception) -> ASGIApp:
    """The answer to an error; Starlette, which takes the held start for sent, wraps those that have a handler."""
    cause = exc.__cause__
    if isinstance(cause, Exception) and str(exc).startswith("Caught handled exception"):
        handlers, _ = scope.get("starlette.exception_handlers", ({}, {}))
        if handler := next((handlers[kind] for kind in type(cause).__mro__ if kind in handlers), None):
            answer: ASGIApp = await handler(Request(scope), cause)
            return answer
    return failure(scope, exc)


def _is_event_stream(start: Message) -> bool:
    types = (value for name, value in start.get("headers", ()) if name.lower() == b"content-type")
    return any(value.startswith(b"text/event-stream") for value in types)


def _is_empty_chunk(message: Message) -> bool:
    is_body = message["type"] == "http.response.body"
    return is_body and bool(message.get("more_body")) and not message.get("body")
