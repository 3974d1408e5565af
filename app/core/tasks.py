"""Registry of tasks, and of templates that a queued mail may name: importing this registers them."""

from importlib import import_module
from pkgutil import iter_modules

from app.core.modules import parts
from app.core.services import mail, queue

TASKS = [queue, mail, *parts("tasks")]
# A route may have queued a mail with a template that no task imports, and a worker loads no routes.
TEMPLATES = [
    import_module(found.name)
    for package in parts("emails")
    for found in iter_modules(getattr(package, "__path__", ()), f"{package.__name__}.")
]
