"""`kit secrets`."""

import io
import json

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr
from typer.testing import CliRunner

from app.cli import app
from app.core.configs.safety import weak_secret
from tests.processes import kit

pytestmark = pytest.mark.once


def test_lines_for_a_file_of_settings() -> None:
    done = kit("secrets", ENVIRONMENT="production")
    assert (done.returncode, done.stderr) == (0, "")
    values = dotenv_values(stream=io.StringIO(done.stdout))
    assert set(values) >= {"SECRET_KEY", "JWT_SECRET_KEY"}
    assert len(set(values.values())) == len(values) == len(done.stdout.splitlines())
    assert not any(weak_secret(SecretStr(value or "")) for value in values.values())


def test_json_and_never_the_same_twice() -> None:
    first, second = (json.loads(CliRunner().invoke(app, ["secrets", "--json"]).stdout) for _ in range(2))
    assert first.keys() == second.keys() >= {"SECRET_KEY", "JWT_SECRET_KEY"}
    assert not set(first.values()) & set(second.values())
