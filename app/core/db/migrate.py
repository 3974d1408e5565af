"""Migrations from the program: what `kit` and the tests call. The `alembic` command works beside it."""

from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import URL

from app.core.configs import PROJECT_ROOT


def alembic_config(url: URL | None = None, **attributes: Any) -> Config:
    """Alembic's configuration for the database at `url`, by default the application's own.

    The address travels as an attribute: in the file's options a `%` of a password would be interpolated.
    """
    config = Config(PROJECT_ROOT / "alembic.ini")
    config.attributes.update(attributes, url=url)
    return config


def upgrade(url: URL | None = None, revision: str = "head") -> None:
    """Bring the database up to `revision`. Blocks; of several processes one migrates and the others wait."""
    command.upgrade(alembic_config(url), revision)


def downgrade(url: URL | None = None, revision: str = "-1") -> None:
    """Take the database back to `revision`, by default one step."""
    command.downgrade(alembic_config(url), revision)
