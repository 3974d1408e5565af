"""What Alembic runs for every command."""

from alembic import context

from app.core.db import migration_env
from app.core.models import metadata

migration_env.run(context.config.attributes.get("metadata", metadata))
