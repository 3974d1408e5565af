"""The service started for the attacks, as `kit run` starts it: one process, or two on one database.

Imports the settings of the tests: TEST_BACKEND says which half, TEST_DATABASE_URL and TEST_REDIS_URL where it is.
"""

import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import httpx
from sqlalchemy import make_url

from app.cli.run import answers
from app.core.migrations.migrate import Migrations
from tests.attacks.document import Document
from tests.attacks.inside import Stores, unfinished_jobs
from tests.attacks.target import Account, Target
from tests.conftest import backend
from tests.processes import environment, free_port, served_settings, started, until, wait_for
from tests.utils import CapturedMail

ADMIN = Account("admin@example.com", "admin", "horse battery staple 7193")
SECRET = "d2f1c0b7a9e84a5d8c3b6f0e1a7d9c5b4e2f8a60"
_SETTINGS = {
    "ENVIRONMENT": "testing",
    "SECRET_KEY": "5b0d8f3a6c9e4271b8d3f6a0c5e9172d4f8b6a3c",
    "JWT_SECRET_KEY": SECRET,
    "FIRST_USER_EMAIL": ADMIN.email,
    "FIRST_USER_USERNAME": ADMIN.username,
    "FIRST_USER_PASSWORD": ADMIN.password,
    "USER_VERIFICATION_REQUIRED": "true",
    "PASSWORD_HASH_MEMORY_KIB": "8",
    "PASSWORD_HASH_ROUNDS": "1",
    "JOBS_POLL_SECONDS": "0.2",
    "LOG_LEVEL": "DEBUG",
    "LOG_FORMAT": "json",
    "CACHE_TIMEOUT_SECONDS": "5",
    "RATE_LIMITER_TIMEOUT_SECONDS": "5",
}
_TLS = ssl.create_default_context()


def local_transport(address: str) -> httpx.AsyncBaseTransport:
    """Connections from an address of this machine; none is kept, since the next request may come from another."""
    limits = httpx.Limits(max_keepalive_connections=4, max_connections=100)
    return httpx.AsyncHTTPTransport(local_address=address, limits=limits, verify=_TLS)


@asynccontextmanager
async def service(processes: int, *, full: bool) -> AsyncIterator[Target]:
    """The service with rate limits off, so that attacks are answered, and a second one with limits for who asks."""
    with tempfile.TemporaryDirectory(prefix="kit-attacks-") as name, ExitStack() as stack:
        folder = Path(name)
        Migrations(backend.template).upgrade()
        stores = stack.enter_context(served_settings())
        settings = _SETTINGS | stores
        ports = [free_port() for _ in range(processes)]
        for port in ports:
            stack.enter_context(_process(folder, port, settings | {"RATE_LIMITER_ENABLED": "false"}))

        @asynccontextmanager
        async def limited() -> AsyncIterator[Target]:
            with ExitStack() as more:
                own = more.enter_context(served_settings())  # SQLite belongs to one service
                others = [free_port() for _ in range(processes)]
                for port in others:
                    more.enter_context(_process(folder, port, _SETTINGS | own | {"RATE_LIMITER_ENABLED": "true"}))
                async with await target_at(others, own) as opened:
                    yield opened

        async def target_at(ports: list[int], stores: Mapping[str, str]) -> Target:
            urls = [f"http://127.0.0.1:{port}" for port in ports]
            async with httpx.AsyncClient(base_url=urls[0], trust_env=False) as http:
                document = Document((await http.get("/openapi.json")).raise_for_status().json())
            admin = Account(ADMIN.email, ADMIN.username, ADMIN.password)
            return Target(
                urls=urls,
                transport=local_transport,
                document=document,
                admin=admin,
                inside=_inside(folder, stores),
                own_addresses=True,
                full=full,
            )

        target = await target_at(ports, stores)
        target.limits = limited
        async with target:
            yield target


def _inside(folder: Path, stores: Mapping[str, str]) -> Stores:
    """What the processes write and store. They share a folder: addresses of mails tell them apart."""
    database = make_url(stores["DATABASE_URL"])
    return Stores(
        database=database,
        redis=(stores["REDIS_URL"], stores["REDIS_KEY_PREFIX"]) if stores["REDIS_URL"] else None,
        mail=CapturedMail(folder / "var" / "mail"),
        log=lambda: "".join(log.read_text(errors="replace") for log in sorted(folder.glob("*.log"))),
        jwt_secret=SECRET,
        settle=lambda: until(lambda: not unfinished_jobs(database), 60),
    )


@contextmanager
def _process(folder: Path, port: int, settings: dict[str, str]) -> Iterator[None]:
    """`kit run` at a port, which answers."""
    env = environment(folder, **settings | {"PORT": str(port)})
    log = folder / f"{port}-{time.monotonic_ns()}.log"
    with started(sys.executable, "-m", "app.cli", "run", env=env, log=log) as process:
        wait_for(lambda: answers("127.0.0.1", port, "/health/ready") or process.poll() is not None)
        assert process.poll() is None, log.read_text()[-2000:]
        yield
