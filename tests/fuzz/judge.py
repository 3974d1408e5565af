"""Sends one raw request to the application and says what is wrong with the answer."""

import asyncio
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from starlette.types import ASGIApp, Message

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Answer:
    """What came back, and after how many seconds."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


async def send(
    app: ASGIApp, method: str, path: str, *, query: bytes = b"", headers: dict[str, str], chunks: Iterable[bytes] = ()
) -> Answer:
    """The answer to a request that no client library would send; nothing checks or changes it on its way."""
    pieces = list(chunks) or [b""]
    messages: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        for number, piece in enumerate(pieces, 1)
    ]
    received: list[Message] = []
    fields = {"host": "test"} | headers
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "scheme": "http",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()],
        "client": ("192.0.2.1", 50000),
        "server": ("test", 80),
        "state": {},
    }

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()  # the client waits for the answer
        return messages.pop(0)

    async def keep(message: Message) -> None:
        received.append(message)

    begun = time.perf_counter()
    await app(scope, receive, keep)
    seconds = time.perf_counter() - begun
    start = next(message for message in received if message["type"] == "http.response.start")
    body = b"".join(message.get("body", b"") for message in received if message["type"] == "http.response.body")
    return Answer(int(start["status"]), {k.decode(): v.decode("latin-1") for k, v in start["headers"]}, body, seconds)


def faults(answer: Answer, sent: Iterable[str], path: str) -> list[str]:
    """What is wrong: a 5xx, an error that is no problem document, or one that repeats a piece of what was sent."""
    if answer.status >= 500:
        return [f"status {answer.status}"]
    if answer.status < 400:
        return []
    try:
        problem = json.loads(answer.body)
    except ValueError:
        return [f"status {answer.status} without a problem document"]
    if answer.headers.get("content-type") != "application/problem+json" or problem["status"] != answer.status:
        return [f"status {answer.status} whose problem document is not in order"]
    if problem.pop("instance") != path:
        return ["instance is not the path"]
    del problem["request_id"]
    for fault in problem.get("errors", ()):
        # the name of an unknown field is the caller's, and may be shown where it could be a name
        fault["loc"] = [part for part in fault["loc"] if not _NAME.fullmatch(str(part))]
    text = json.dumps(problem, ensure_ascii=False)
    return [f"echo of {piece!r}" for piece in sent if piece in text]


def pieces(query: bytes, own: Iterable[str]) -> set[str]:
    """The words of a query that an error must not repeat: of 5 characters or more, and in none of the API's own."""
    text = unquote_plus(query.decode("latin-1"), errors="replace")
    ours = " ".join(own)
    return {word for word in re.split(r"[\s&=:,\[\]\\]+", text) if len(word) >= 5 and word not in ours}
