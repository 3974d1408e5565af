"""`kit users`, and the commands that modules bring."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select as select_ready
from typing import Any

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.engine import URL

from app.auth.config import get_auth_config
from app.auth.models import User
from app.core.configs import PROJECT_ROOT
from app.core.db.jobs import Job
from app.core.migrations.env import sync_url
from app.core.services.mail.service import SendMail
from tests import processes
from tests.conftest import backend
from tests.planted import PlantedProject
from tests.processes import environment, starts_in_production

PASSWORD = "correct horse battery"
USERS = (sys.executable, "-m", "app.cli", "users")
CREATE = (*USERS, "create")

SHOP = '''"""Look after the shop."""

import typer

from app.core.exceptions import NotFoundError

app = typer.Typer()


@app.command()
def close_down(reason: str) -> None:
    """End the business."""
    print(f"closed: {reason}")


@app.command()
async def find(number: int) -> None:
    """Find an order."""
    raise NotFoundError(f"There is no order {number}.")
'''


class House:
    """A database of its own, and what `kit users create` does to it."""

    def __init__(self, url: URL, folder: Path) -> None:
        self.url = url
        stores = {"DATABASE_URL": url.render_as_string(hide_password=False), "REDIS_URL": "", "SECRET_KEY": ""}
        self.env = environment(folder, **stores)

    def create(self, *arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        """Run the command; `given` is its standard input."""
        return self.run(*CREATE, *arguments, given=given)

    def reset_password(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the command that gives an account another password."""
        return self.run(*USERS, "reset-password", *arguments)

    def run(self, *arguments: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a program to its end."""
        done = processes.run(*arguments, env=self.env, given=given)
        assert "Traceback" not in done.stderr
        return done

    @contextmanager
    def terminal(self, *arguments: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
        """The command where it can ask, and its terminal."""
        terminal, inner = pty.openpty()
        streams: Any = {"stdin": inner, "stdout": inner, "stderr": inner}
        with subprocess.Popen(
            [*CREATE, *arguments],
            cwd=PROJECT_ROOT,
            env=self.env,
            start_new_session=True,  # or the question goes to the terminal of whoever runs the tests
            **streams,
        ) as process:
            os.close(inner)
            try:
                yield process, terminal
            finally:
                process.kill()
                os.close(terminal)

    def create_in_terminal(self, *arguments: str) -> str:
        """Answer what the command asks; what the terminal shows."""
        shown = ""
        with self.terminal(*arguments) as (process, terminal):
            for awaited in ("Password: ", "Repeat for confirmation: ", "has id"):
                shown = read_until(awaited, terminal, shown)
                if awaited != "has id":
                    os.write(terminal, f"{PASSWORD}\n".encode())
            assert process.wait(30) == 0
        return shown

    def read(self, statement: Any) -> list[Any]:
        """The rows."""
        engine = create_engine(sync_url(self.url))
        with engine.connect() as connection:
            rows = list(connection.execute(statement))
        engine.dispose()
        return rows


@pytest.fixture
def house(template: URL, tmp_path: Path) -> Iterator[House]:
    url = backend.copy()
    yield House(url, tmp_path)
    backend.drop(url)


def read_until(awaited: str, terminal: int, shown: str = "") -> str:
    """What the terminal shows once it shows that."""
    while awaited not in shown:
        assert select_ready([terminal], [], [], 30)[0], shown
        shown += os.read(terminal, 1024).decode()
    return shown


async def verifies(password: str, stored: str) -> bool:
    """Whether this is the password."""
    return (await get_auth_config().password_hasher.verify(password, stored)).ok


class TestCreate:
    async def test_an_account_that_can_log_in_and_is_told_to_listeners(self, house: House) -> None:
        arguments = ("--email", "Ada@example.com", "--username", "ada", "--password-stdin")
        done = house.create(*arguments, given=f"{PASSWORD}\n")
        assert done.returncode == 0, done.stderr
        (user,) = house.read(select(User.__table__))
        assert done.stdout == f"User ada (Ada@example.com) has id {user.id}.\n"
        assert (user.username, user.is_verified, user.is_superuser) == ("ada", True, False)
        assert await verifies(PASSWORD, user.password_hash)
        heard = [job.payload["event"] for job in house.read(select(Job.__table__))]
        assert set(heard) == {"user_created"}
        assert not any(PASSWORD in str(job) for job in house.read(select(Job.__table__)))

        again = house.create(
            "--email", "ADA@example.com", "--username", "another", "--password-stdin", given=f"{PASSWORD}\n"
        )
        assert (again.returncode, again.stdout) == (1, "")
        assert again.stderr == "An account with this e-mail address already exists.\n"

    async def test_a_superuser_with_a_generated_password(self, house: House) -> None:
        done = house.create("--email", "root@example.com", "--username", "root", "--superuser", "--generate")
        said = re.fullmatch(r"Superuser root \(root@example\.com\) has id \d+\.\nPassword: (\S+) .*\n", done.stdout)
        assert said, done.stderr
        (user,) = house.read(select(User.__table__))
        assert user.is_superuser
        events = {job.payload.get("event") for job in house.read(select(Job.__table__))}
        assert events == {"user_created", "role_granted", "superuser_changed", None}, "and a mail, which is no event"
        assert await verifies(said[1], user.password_hash)

        done = house.reset_password("ROOT", "--generate")
        said = re.fullmatch(
            r"root \(root@example\.com\) has another password; every session has ended\.\nPassword: (\S+) .*\n",
            done.stdout,
        )
        assert said, done.stderr
        (reset,) = house.read(select(User.__table__))
        assert await verifies(said[1], reset.password_hash)
        assert reset.security_stamp > user.security_stamp
        told = house.read(select(Job.__table__).where(Job.task == SendMail.__task_name__).order_by(Job.id.desc()))[0]
        assert told.payload["email_data"]["recipients"] == ["root@example.com"]
        assert said[1] not in str(house.read(select(Job.__table__)))

    @starts_in_production
    def test_outside_local_a_generated_password_must_be_changed(self, house: House) -> None:
        names = ("--email", "ada@example.com", "--username", "ada")
        secret = {
            "JWT_SECRET_KEY": "5f2c8e1b7d3a496083bfae2d61c7905e",
            "SECRET_KEY": "9e1d7c3b5a2f48607d3c9eb1f04a2586",
        }
        house.env |= secret | {"ENVIRONMENT": "production", "FRONTEND_URL": "https://shop.example"}
        house.env |= {"SMTP_HOST": "127.0.0.1"}
        done = house.create(*names, "--generate")
        assert done.returncode == 0, done.stderr
        assert [user.password_change_required for user in house.read(select(User.__table__))] == [True]
        done = house.run(*USERS, "reset-password", "ada", "--password-stdin", given=f"{PASSWORD}\n")
        assert done.returncode == 0, done.stderr
        assert [user.password_change_required for user in house.read(select(User.__table__))] == [False]

    async def test_a_terminal_is_asked_without_an_echo(self, house: House) -> None:
        shown = house.create_in_terminal("--email", "ada@example.com", "--username", "ada")
        assert "User ada (ada@example.com) has id " in shown
        assert PASSWORD not in shown
        (user,) = house.read(select(User.__table__))
        assert await verifies(PASSWORD, user.password_hash)

    def test_an_interrupt_at_the_question_ends_it(self, house: House) -> None:
        with house.terminal("--email", "ada@example.com", "--username", "ada") as (process, terminal):
            read_until("Password: ", terminal)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 1
        assert house.read(select(User.__table__)) == []


class TestErase:
    def test_the_data_of_a_user_is_shown_and_erased(self, house: House) -> None:
        for name in ("ada", "123"):
            house.create("--email", f"{name}@example.com", "--username", name, "--generate")
        (ada, other) = house.read(select(User.id).order_by(User.id))

        shown = json.loads(house.run(*USERS, "export", "ada").stdout)
        assert shown["data"]["auth"][0]["account"]["email"] == "ada@example.com"
        assert house.run(*USERS, "export", "123").stderr == "The user was not found.\n"  # digits are an id

        done = house.run(*USERS, "erase", "ada", given="n\n")
        assert done.returncode == 1
        assert f"Erase ada (ada@example.com), id {ada.id}, in every module?" in done.stdout
        done = house.run(*USERS, "erase", "ada@example.com", "--yes")
        assert (done.returncode, done.stdout.startswith(f"User {ada.id} is erased")) == (0, True), done.stderr
        assert house.run(*USERS, "erase", str(ada.id), "--yes").returncode == 0

        found = house.read(select(User.email, User.password_hash == "").order_by(User.id))
        assert [tuple(row) for row in found] == [(f"erased-{ada.id}@invalid", True), ("123@example.com", False)]
        assert house.run(*USERS, "erase", str(other.id + 1), "--yes").stderr == "The user was not found.\n"

    def test_the_last_administrator_stays(self, house: House) -> None:
        house.create("--email", "ada@example.com", "--username", "ada", "--generate", "--superuser")
        done = house.run(*USERS, "erase", "ada", "--yes")
        assert done.returncode == 1
        assert "cannot be deleted" in done.stderr
        assert house.read(select(User.deleted_at)) == [(None,)]


class TestRefusal:
    def test_the_rules_are_those_of_the_api(self, house: House) -> None:
        done = house.create("--email", "nobody", "--username", "a b", "--password-stdin", given="short\n")
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("email: Value is not a valid e-mail address; username: String should match pattern")
        assert "short" not in line
        names = ("--email", "ada@example.com", "--username", "ada", "--password-stdin")
        for given, told in (
            ("short one", "Use at least 12 characters."),
            ("dragon2026!!", "easy to guess"),
            ("", "item"),
        ):
            done = house.create(*names, given=f"{given}\n")
            assert (done.returncode, done.stdout) == (1, "")
            assert told in done.stderr
            assert not given or given not in done.stderr
        assert house.read(select(User.__table__)) == []

    def test_nobody_to_ask(self, house: House) -> None:
        done = house.create("--email", "ada@example.com", "--username", "ada")
        assert (done.returncode, done.stdout) == (2, "")
        assert "--password-stdin or --generate" in done.stderr


class TestModuleCommands:
    def test_they_are_found_and_fail_in_one_line(self, tmp_path: Path) -> None:
        project = PlantedProject(tmp_path)
        folder = project.add_module("shop") / "cli"
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "shop.py").write_text(SHOP)
        (folder / "run.py").write_text('"""Run away."""\nraise AssertionError("a name of kit\'s own")\n')
        listed = project.kit("--help").stdout
        assert "Look after the shop." in listed
        assert "Run away." not in listed

        done = project.kit("shop", "close-down", "war")
        assert (done.returncode, done.stdout) == (0, "closed: war\n"), done.stderr
        done = project.kit("shop", "find", "7")
        assert (done.returncode, done.stderr) == (1, "There is no order 7.\n")
        done = project.kit("shop", "find", "7", MODULES="app.*,-app.shop")
        assert (done.returncode, done.stderr) == (1, "app.shop is not installed: MODULES leaves it out.\n")
