"""Reading what was logged."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from app.core.configs import AppConfig, get_settings
from app.core.services.log import configure_logging


class LogLines:
    """The lines written so far."""

    def __init__(self) -> None:
        self.stream = io.BytesIO()

    @property
    def text(self) -> str:
        """Everything, as written."""
        return self.stream.getvalue().decode()

    def all(self, event: str | None = None) -> list[dict[str, Any]]:
        """The JSON lines of one event, or all but those of libraries, which may write at any time."""
        lines = [orjson.loads(line) for line in self.text.splitlines()]
        return [line for line in lines if (line["event"] == event if event else "logger" not in line)]

    def one(self, event: str) -> dict[str, Any]:
        """The only line of an event."""
        (line,) = self.all(event)
        return line


@contextmanager
def captured_log(**settings: Any) -> Iterator[LogLines]:
    """Write the log to memory: JSON from DEBUG on, unless `settings` say otherwise."""
    lines = LogLines()
    configure_logging(AppConfig(**{"LOG_LEVEL": "DEBUG", "LOG_FORMAT": "json", **settings}), lines.stream)
    try:
        yield lines
    finally:
        configure_logging(get_settings())
