"""What Alembic runs for every command."""

import sys

from alembic import context

from app.core.configs import app_config
from app.core.migrations import autogenerate, env
from app.core.migrations.installed import installed_timelines
from app.core.services.log import configure_logging

if context.config.cmd_opts is not None:  # the `alembic` command; a caller inside the program has its own logging
    configure_logging(app_config, sys.stderr.buffer)  # `--sql` and `current` own the standard output

env.run(context.config.attributes.get("timelines") or installed_timelines(), autogenerate.options)
