"""`kit doctor`, in a copy of the application that is healthy at first."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from redis import Redis
from sqlalchemy import delete, insert
from sqlalchemy.engine import URL

from app.cli.doctor.services import clock_finding
from app.core.configs import PROJECT_ROOT, make_private
from app.core.db.base import utcnow
from app.core.db.installation import Installation
from app.core.db.jobs import Job, JobStatus
from app.core.migrations.env import connected
from tests.conftest import backend
from tests.planted import PlantedProject
from tests.processes import free_port, redis_server

FILES = ("pyproject.toml", "poetry.lock", "requirements.txt", "requirements-dev.txt")
ROUTERS = """
from fastapi import APIRouter, Depends
from fastapi.security import OAuth2PasswordBearer

router_v1 = APIRouter(prefix="/shop", dependencies=[Depends(OAuth2PasswordBearer("/api/v1/shop/token", "Shop"))])


@router_v1.get("/{item}")
async def read(item: str) -> str:
    return item


@router_v1.get("/all")
async def everything() -> str:
    return "all"
"""
HEAD = 'revision, down_revision = "{}", "{}"\ndef upgrade(): pass\ndef downgrade(): pass\n'

needs_redis = pytest.mark.needs("redis-server")


class Checkup:
    """What `kit doctor --json` found: the findings by check and state."""

    def __init__(self, project: PlantedProject, **settings: str) -> None:
        done = project.kit("doctor", "--json", **settings)
        self.output = done.stdout + done.stderr
        assert done.stderr == ""
        self.code = done.returncode
        self.findings: list[dict[str, Any]] = json.loads(done.stdout)

    def said(self, check: str, state: str) -> list[str]:
        """The findings of a check, each with its fix."""
        found = [one for one in self.findings if (one["check"], one["state"]) == (check, state)]
        assert all(one["fix"] for one in found) or state in ("ok", "skipped")
        return [f"{one['what']}. {one['fix']}" for one in found]

    @property
    def states(self) -> dict[str, set[str]]:
        """The states of each check."""
        checks = dict.fromkeys(one["check"] for one in self.findings)
        return {check: {one["state"] for one in self.findings if one["check"] == check} for check in checks}


@pytest.fixture
def project(tmp_path: Path) -> PlantedProject:
    """The copy, with what it was installed from."""
    found = PlantedProject(tmp_path)
    for name in FILES:
        shutil.copy(PROJECT_ROOT / name, tmp_path)
    return found


@pytest.fixture
def database(template: URL) -> Iterator[URL]:
    url = backend.copy()
    yield url
    backend.drop(url)


@contextmanager
def mail_server(**options: Any) -> Iterator[str]:
    """The port of a server that offers no TLS."""
    controller = Controller(object(), hostname="127.0.0.1", port=free_port(), **options)
    controller.start()
    try:
        yield str(controller.port)
    finally:
        controller.stop()


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def newest(versions: Path) -> Path:
    """The revision that no other follows."""
    texts = {path: path.read_text() for path in versions.glob("*.py")}
    return next(path for path in texts if sum(f'"{revision_of(path)}"' in text for text in texts.values()) == 1)


def revision_of(path: Path) -> str:
    return path.stem.split("_")[1]


@needs_redis
def test_a_dozen_injected_faults_are_all_named(project: PlantedProject, database: URL, tmp_path: Path) -> None:
    folder, port = project.folder, free_port()
    project.settings |= {
        "DATABASE_URL": database.render_as_string(hide_password=False),
        "REDIS_URL": f"redis://:hidden@127.0.0.1:{port}/0",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_TLS": "false",
    }
    secret = folder / "var" / "secrets" / "SECRET_KEY"
    make_private(secret.parent)
    secret.touch(mode=0o600)
    with mail_server() as smtp_port:
        project.settings["SMTP_PORT"] = smtp_port
        with redis_server(tmp_path, port):
            Redis(port=port).config_set("requirepass", "hidden")
            healthy = Checkup(project)
            with connected(database) as connection:
                connection.execute(delete(Installation))
                connection.execute(insert(Installation).values(id=1, identity="ours"))
                connection.commit()
            Redis(port=port, password="hidden").set("shop:owner", "theirs")
            shared = Checkup(project, REDIS_KEY_PREFIX="shop:")
        assert healthy.code == 0, healthy.output
        assert set.union(*healthy.states.values()) == {"ok"}, healthy.output
        assert "another server does not" in healthy.said("server", "ok")[0]

        (foreign,) = shared.said("redis", "fault")
        assert foreign.startswith("another installation uses REDIS_KEY_PREFIX=shop: there: ")

        # The Redis has stopped: the first fault. The others:
        replace(folder / "requirements.txt", "alembic==", "alembic==0.")
        replace(folder / "pyproject.toml", '"jinja2 (>=3.1', '"jinja2 (>=3.0')
        (folder / "some.env").write_text("SMPT_HOST=mail\n")
        secret.chmod(0o644)
        (project.add_module("shop") / "routers.py").write_text(ROUTERS)
        removed = newest(folder / "migrations" / "versions")
        removed.unlink()
        with connected(database) as connection:
            values = {"task": "shop.sell", "payload": {}, "attempts": 3, "max_attempts": 3}
            moments = {"available_at": utcnow() - timedelta(hours=1), "finished_at": utcnow()}
            connection.execute(insert(Job).values(status=JobStatus.DEAD, **values, **moments))
            connection.execute(
                insert(Job).values(status=JobStatus.PENDING, **values, **moments | {"finished_at": None})
            )
            connection.commit()
        ill = Checkup(project, ENV_FILE=str(folder / "some.env"), SMTP_TLS="true", POSTGRES_PORT="5433")

    assert ill.code == 1
    assert "hidden" not in ill.output
    (package,) = ill.said("packages", "fault")
    assert package.startswith("alembic is ")
    declared, pinned = ill.said("lock", "fault")
    assert declared.startswith("poetry.lock is not what pyproject.toml declares. make lock")
    assert pinned.startswith("requirements.txt pins alembic 0.")
    unknown, useless = ill.said("environment", "warning")
    assert unknown.startswith("some.env: unknown setting 'SMPT_HOST'; did you mean SMTP_HOST?")
    assert useless.startswith("POSTGRES_PORT without effect: DATABASE_URL is set.")
    assert ill.said("data folder", "fault") == [f"others on this machine may read {secret}. chmod 600 {secret}"]
    (token,) = ill.said("application", "fault")
    assert token.startswith("the token URL of Shop is /api/v1/shop/token, where no route answers POST.")
    (route,) = ill.said("application", "warning")
    assert route.startswith("GET /api/v1/shop/all (app.shop.routers:everything) is never reached")
    (revision,) = ill.said("migrations", "fault")
    assert f"the database is at {revision_of(removed)}" in revision
    dead, overdue = ill.said("jobs", "warning")
    assert dead.startswith("1 given up")
    assert "kit jobs retry --all-dead" in dead
    assert overdue.startswith("1 due for more than 10 minutes: nobody runs them. start kit worker")
    (redis,) = ill.said("redis", "fault")
    assert redis.startswith(f"redis://:[redacted]@127.0.0.1:{port}/0 does not answer: ")
    (mail,) = ill.said("mail", "fault")
    assert mail.startswith(f"mail server 127.0.0.1:{smtp_port}: it offers no STARTTLS, as SMTP_TLS=true asks")


def test_unsafe_in_production(project: PlantedProject) -> None:
    versions = project.folder / "migrations" / "versions"
    latest = revision_of(newest(versions))
    (versions / "29990101_two_two.py").write_text(HEAD.format("two", latest))
    (versions / "29990101_three_three.py").write_text(HEAD.format("three", latest))
    env_file = project.folder / "production.env"
    env_file.write_text("ENVIRONMENT=production\n")
    env_file.chmod(0o644)
    found = Checkup(
        project,
        ENV_FILE=str(env_file),
        ENVIRONMENT="production",
        SECRET_KEY="hidden-placeholder",
        WEB_CONCURRENCY="2",
        BACKEND_CORS_ORIGINS="*",
        SMTP_HOST="127.0.0.2",
        SMTP_PORT=str(free_port()),
        SMTP_TLS="false",
        SQL_ECHO="true",
    )
    assert found.code == 1
    assert "hidden" not in found.output
    faults, warnings = found.said("settings", "fault"), found.said("settings", "warning")
    assert [line.split()[0] for line in faults] == [
        *("SECRET_KEY", "FRONTEND_URL", "REDIS_URL", "DATABASE_URL", "JWT_SECRET_KEY"),
        "SMTP_TLS",
    ]
    assert faults[0] == "SECRET_KEY is a placeholder: set a random value. kit secrets prints fresh values"
    assert [line.split()[0] for line in warnings] == ["BACKEND_CORS_ORIGINS", "TRUSTED_PROXIES", "SQL_ECHO"]
    (readable,) = found.said("environment", "warning")
    assert readable.endswith(f"chmod 600 {env_file}")
    assert found.said("application", "skipped")
    # Modules with a timeline of their own have findings of their own.
    heads = found.said("migrations", "fault")[0]
    assert heads.startswith("timeline shared has several heads: three, two. Join them: kit migrate merge")
    (mail,) = found.said("mail", "fault")
    assert "does not answer as configured" in mail


def test_the_default_of_mail_is_starttls(project: PlantedProject) -> None:
    """Unset, SMTP_TLS is on: nothing unsafe, and a server that does not offer it is of no use."""
    with mail_server() as port:
        found = Checkup(project, ENVIRONMENT="production", SMTP_HOST="127.0.0.1", SMTP_PORT=port, SMTP_TLS="")
    assert not [line for line in found.said("settings", "fault") if line.startswith("SMTP")]
    assert "it offers no STARTTLS" in found.said("mail", "fault")[0]


def test_a_key_of_the_wrong_kind_is_not_sent_to_kit_secrets(project: PlantedProject) -> None:
    secret = "5f2c8e1b7d3a496083bfae2d61c7905e"
    found = Checkup(
        project,
        ENVIRONMENT="production",
        SECRET_KEY=secret,
        JWT_SECRET_KEY=secret[::-1],
        FRONTEND_URL="https://shop.example",
        JWT_ALGORITHM="RS256",
        SMTP_HOST="mail..invalid",
    )
    (fault,) = found.said("settings", "fault")
    assert fault == "JWT_SECRET_KEY is no key for RS256. docs/configuration.md says what it may be"
    (mail,) = found.said("mail", "fault")
    assert mail.startswith("mail..invalid:587 does not answer as configured: ")


@needs_redis
def test_what_does_not_answer(project: PlantedProject, tmp_path: Path) -> None:
    """Each check is on its own: what is behind a broken part is skipped, everything else is looked at."""

    def refuse(*_: Any) -> AuthResult:
        return AuthResult(success=False, handled=False)

    port = free_port()
    (project.folder / "file").touch()
    (project.add_module("shop") / "routers.py").write_text("import nothing_of_this_name\n")
    with (
        redis_server(tmp_path, port),
        mail_server(authenticator=refuse, auth_require_tls=False) as smtp_port,
    ):
        Redis(port=port).config_set("maxmemory", "64mb")
        found = Checkup(
            project,
            DATABASE_URL="postgresql://ann:hidden@127.0.0.1:1/kit",
            REDIS_URL=f"redis://127.0.0.1:{port}/0",
            SMTP_HOST="127.0.0.1",
            SMTP_PORT=smtp_port,
            SMTP_TLS="false",
            SMTP_USER="ann",
            SMTP_PASSWORD="hidden",
            VAR_DIR=str(project.folder / "file" / "var"),
        )
    assert found.code == 1
    assert "hidden" not in found.output
    (database,) = found.said("database", "fault")
    assert database.startswith("postgresql+psycopg://ann:***@127.0.0.1:1/kit does not answer: ")
    assert found.states["clock"] == found.states["migrations"] == found.states["jobs"] == {"skipped"}
    (redis,) = found.said("redis", "warning")
    assert redis.startswith(f"redis://127.0.0.1:{port}/0 refuses to write when its 64 MiB are full.")
    assert found.said("mail", "fault")[0].startswith(f"mail server 127.0.0.1:{smtp_port}: it refused the log-in (535 ")
    assert found.said("data folder", "fault")[0].endswith("Not a directory. change VAR_DIR, or its owner")
    (application,) = found.said("application", "fault")
    assert application.startswith("cannot be built: ModuleNotFoundError: No module named 'nothing_of_this_name'.")


def test_settings_that_cannot_be_read(project: PlantedProject) -> None:
    done = project.kit("doctor", PORT="eighty", MODULES="app.auht")
    assert (done.returncode, done.stderr) == (1, "")
    assert "eighty" not in done.stdout
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("fault    settings"))
    assert lines[place].startswith("fault    settings     PORT: Input should be a valid integer")
    assert lines[place + 1].strip().startswith("Fix: ")
    assert sum(line.startswith("skipped") for line in lines) == 9
    assert lines[-1] == "1 fault, no warnings"


def test_integrations_that_cannot_be_used(project: PlantedProject) -> None:
    done = project.kit("doctor", HTTP_INTEGRATIONS__PAYMENTS__BASE_URL="payments", HTTP_INTEGRATIONS__MAPS__BEARER="x")
    assert "fault    settings     HTTP_INTEGRATIONS.payments.base_url: Input should be a valid URL" in done.stdout
    assert "HTTP_INTEGRATIONS.maps: base_url is missing" in done.stdout
    done = project.kit("doctor", HTTP_INTEGRATIONS="{broken")
    assert 'fault    settings     error parsing value for field "HTTP_INTEGRATIONS"' in done.stdout


@pytest.mark.parametrize(("seconds", "said"), [(90, "90 s ahead of ours"), (-6, "6 s behind ours")])
def test_a_database_in_another_time(seconds: int, said: str) -> None:
    finding = clock_finding(timedelta(seconds=seconds))
    assert finding.state == "fault"
    assert said in finding.what
    assert clock_finding(timedelta(seconds=4)).state == "ok"


def test_before_the_first_start(project: PlantedProject) -> None:
    done = project.kit("doctor")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert f"ok       data folder  {project.folder}/var can be made" in lines
    place, *others = (number for number, line in enumerate(lines) if line.startswith("fault"))
    assert lines[place].startswith("fault    migrations   timeline shared: not run here yet: ")
    assert lines[place + 1] == f"{' ' * 22}Fix: kit migrate"
    assert all(lines[number].startswith("fault    migrations   timeline ") for number in others)
    assert not (project.folder / "var").exists()
