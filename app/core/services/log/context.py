"""Ids of the request, and of the conversation of requests, that the running code works for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

REQUEST_ID = "X-Request-ID"
CONVERSATION_ID = "X-Conversation-ID"
"""Headers that carry the ids, in requests and answers."""

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_conversation_id: ContextVar[str | None] = ContextVar("conversation_id", default=None)


def request_id() -> str | None:
    """Return the id of the request this code runs in, or of the one that queued this job."""
    return _request_id.get()


def conversation_id() -> str | None:
    """Return the id that all requests of one conversation share."""
    return _conversation_id.get()


def new_id() -> str:
    """Make an id: 32 hexadecimal digits."""
    return os.urandom(16).hex()


@contextmanager
def correlation(request_id: str | None, conversation_id: str | None) -> Iterator[None]:
    """Add these ids to every log line of the block."""
    tokens = _request_id.set(request_id), _conversation_id.set(conversation_id)
    try:
        yield
    finally:
        _request_id.reset(tokens[0])
        _conversation_id.reset(tokens[1])
