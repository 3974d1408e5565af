"""Report errors to Sentry. Enabled by `SENTRY_DSN`; needs the extra `sentry`."""

import asyncio
from collections.abc import Mapping
from typing import Any

from sentry_sdk import Client
from sentry_sdk.utils import event_from_exception

from app.core.configs import AppConfig
from app.core.services.log.redaction import clean_traceback
from app.core.services.log.reporting import ErrorReporterInterface

FLUSH_SECONDS = 2.0
_TAGS = ("request_id", "conversation_id", "job_id", "task", "route", "method", "status")
_ELSEWHERE = (*_TAGS, "event", "level", "timestamp", "exception", "user", "client")


class SentryReporter(ErrorReporterInterface):
    """Sends each exception with its ids and its user.

    The SDK's own integrations stay off, as do local variables: they would send data that the log leaves out.
    """

    def __init__(self, settings: AppConfig) -> None:
        dsn = settings.SENTRY_DSN
        self._client = Client(
            dsn=dsn.get_secret_value() if dsn else None,
            environment=settings.ENVIRONMENT.value,
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            max_breadcrumbs=0,
        )

    def report(self, error: BaseException, line: Mapping[str, Any]) -> None:
        event, hint = event_from_exception(error, client_options=self._client.options)
        for value in event["exception"]["values"]:
            value["value"] = clean_traceback(str(value.get("value"))).strip()
        event["message"] = str(line["event"])
        event["level"] = line["level"]
        event["tags"] = {name: str(line[name]) for name in _TAGS if line.get(name) is not None}
        event["user"] = {"id": line["user"]} if line.get("user") else {}
        event["extra"] = {name: value for name, value in line.items() if name not in _ELSEWHERE}
        self._client.capture_event(event, hint)

    async def close(self) -> None:
        """Send pending events, for at most `FLUSH_SECONDS`."""
        await asyncio.to_thread(self._client.close, timeout=FLUSH_SECONDS)
