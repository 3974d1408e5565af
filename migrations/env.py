"""The environment of every Alembic command, with the comparison of tools/ where that folder is."""

import sys

from alembic import context

from app.core.configs import PROJECT_ROOT, app_config
from app.core.migrations import env
from app.core.services.log import configure_logging

if context.config.cmd_opts is not None:  # the `alembic` command; a caller inside the program has its own logging
    configure_logging(app_config, sys.stderr.buffer)  # `--sql` and `current` own the standard output

if (PROJECT_ROOT / "tools").is_dir():
    from tools.migrations.autogenerate import options

    env.run(options)
else:
    env.run(None)
