"""`make attacks`: attack the service started here, with one process and with two, or the one at URL."""

import argparse
import asyncio
import json
import logging
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.attacks import document as documents
from tests.attacks.document import Document
from tests.attacks.report import Progress, Report, as_json, table
from tests.attacks.suite import ATTACKS, run
from tests.attacks.target import Account, Target, Unavailable

CREDENTIALS = """\
environment, for a service at URL:
  ATTACK_USER, ATTACK_USER_PASSWORD            an ordinary account; without it, accounts are made or registered
  ATTACK_OTHER_USER, ATTACK_OTHER_PASSWORD     another one
  ATTACK_ADMIN, ATTACK_ADMIN_PASSWORD          an administrator: makes the accounts that attacks break
  ATTACK_API_KEY                               an API key, where there are such
  ATTACK_MAIL_DOMAIN                           domain of the addresses of new accounts (default: example.com)

The exit code is 1 if something was accepted that must not be, or answered with a 5xx.
"""
PATIENCE = 600


def main() -> None:
    """Attack, and print a table or, with `--json`, one JSON document."""
    chosen = _options()
    for name in ("httpx", "alembic.runtime.migration"):
        logging.getLogger(name).setLevel(logging.WARNING)  # the standard output is for the result
    documents.MAIL_DOMAIN = os.environ.get("ATTACK_MAIL_DOMAIN") or documents.MAIL_DOMAIN
    progress = Progress(silent=chosen.json)
    names = chosen.only or list(ATTACKS)
    try:
        reports = asyncio.run(_all(chosen, names, progress))
    except (httpx.HTTPError, Unavailable, ValueError) as exc:
        sys.exit(f"The attacks could not begin: {exc}")
    if chosen.json:
        print(as_json(reports))
    else:
        for name, found in reports.items():
            print(f"\n{name}\n\n{table(found)}")
    if any(one.failed for found in reports.values() for one in found):
        sys.exit(1)
    if unjudged := [one.attack for found in reports.values() for one in found if one.unjudged and not one.held]:
        print(
            f"Nothing was judged by {', '.join(unjudged)}: more --patience, or a copy without limits.", file=sys.stderr
        )
        sys.exit(2)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make attacks", description=__doc__, epilog=CREDENTIALS, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "url", nargs="?", help="base URL of a service, as https://staging.example.com; more with --also"
    )
    parser.add_argument("--also", action="append", default=[], help="URL of another process of the same service")
    parser.add_argument("--document", help="file or URL of the OpenAPI document, where /openapi.json is off")
    parser.add_argument("--only", action="append", choices=list(ATTACKS), help="this attack alone; may be repeated")
    parser.add_argument("--short", action="store_true", help="fewer samples and rounds")
    parser.add_argument("--processes", type=int, action="append", help="without URL: how many (default: 1, then 2)")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds to wait for limits in each attack")
    parser.add_argument("--json", action="store_true", help="one JSON document on the standard output")
    chosen = parser.parse_args()
    if chosen.url and "://" not in chosen.url:
        parser.error("URL begins with http:// or https://")
    return chosen


async def _all(chosen: argparse.Namespace, names: list[str], progress: Progress) -> dict[str, list[Report]]:
    found: dict[str, list[Report]] = {}
    for name, opened in _targets(chosen).items():
        progress.label = f"{name}: "
        async with opened() as target:
            found[name] = await run(target, names, progress)
            if chosen.url:
                await target.tidy()
    return found


Opened = Callable[[], AbstractAsyncContextManager[Target]]


def _targets(chosen: argparse.Namespace) -> dict[str, Opened]:
    if chosen.url:
        return {chosen.url: lambda: _deployment(chosen)}
    from tests.attacks.started import service
    from tests.conftest import backend

    # SQLite belongs to one process.
    most = 2 if backend.environment()["REDIS_URL"] else 1
    numbers = chosen.processes or [number for number in (1, 2) if number <= most]
    half = backend.name.split(",")[0]

    def opened(number: int) -> Opened:
        return lambda: service(number, full=not chosen.short)

    return {f"{half}, {number} process{'es' * (number > 1)}": opened(number) for number in numbers}


@asynccontextmanager
async def _deployment(chosen: argparse.Namespace) -> AsyncIterator[Target]:
    """The service at a URL, with the accounts of the environment."""
    tls = ssl.create_default_context()

    def transport(_address: str) -> httpx.AsyncBaseTransport:
        return httpx.AsyncHTTPTransport(verify=tls)

    content = Document(await asyncio.to_thread(_document, chosen))
    target = Target(
        urls=[chosen.url.rstrip("/"), *chosen.also],
        transport=transport,
        document=content,
        admin=_account("ATTACK_ADMIN", "ATTACK_ADMIN_PASSWORD"),
        key=os.environ.get("ATTACK_API_KEY", ""),
        full=not chosen.short,
        patience=chosen.patience,
    )
    pairs = (("ATTACK_USER", "ATTACK_USER_PASSWORD"), ("ATTACK_OTHER_USER", "ATTACK_OTHER_PASSWORD"))
    async with target:
        for account in (_account(*pair) for pair in pairs):
            if account:
                target.members.append(await target.log_in(account))
        if target.admin:
            await target.log_in(target.admin)
        yield target


def _account(name: str, password: str) -> Account | None:
    given, secret = os.environ.get(name, ""), os.environ.get(password, "")
    return Account(given, given, secret) if given and secret else None


def _document(chosen: argparse.Namespace) -> dict[str, Any]:
    place = chosen.document or f"{chosen.url.rstrip('/')}/openapi.json"
    if "://" not in place:
        content: dict[str, Any] = json.loads(Path(place).read_text(encoding="utf-8"))
        return content
    answer = httpx.get(place, trust_env=False, timeout=30)
    if answer.status_code != 200:
        raise Unavailable(f"{place} answered {answer.status_code}; --document names a file with it")
    found: dict[str, Any] = answer.json()
    return found


if __name__ == "__main__":
    main()
