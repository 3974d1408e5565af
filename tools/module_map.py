"""The map of the modules as Markdown: a diagram of who uses whom, and what each module has."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy.orm import DeclarativeBase

from app.core import listeners as _loaded_listeners  # noqa: F401  importing registers them
from app.core import tasks as _loaded_tasks  # noqa: F401
from app.core.api.routes import ListedRoute, listed_routes
from app.core.configs import BaseConfig
from app.core.db import BaseModel
from app.core.modules import Module, installed_modules, table_owner
from app.core.services.events import BaseEvent
from app.core.services.events.interface import listeners
from app.core.services.queue.registry import tasks
from app.main import create_app

HEAD = """# Module map

Written from the code by `kit module docs`; `make check` fails when it is behind. An arrow leads from a module to one
it uses; a dotted one carries events from where they happen to who hears them.
"""

Entry = tuple[str, str]
T = TypeVar("T")


def module_map() -> str:
    """The whole page. It changes only when the modules do."""
    modules = installed_modules()
    routes = list(listed_routes(create_app(run_jobs=False).routes))
    sections = [_section(module, modules, routes) for module in modules]
    return "\n".join([HEAD, _diagram(modules), *sections]).rstrip() + "\n"


def _diagram(modules: Sequence[Module]) -> str:
    lines = ["```mermaid", "flowchart LR"]
    for module in modules:
        lines.append(f"    {module.short_name}")
        lines += [f"    {module.short_name} --> {_short(other)}" for other in sorted(module.depends_on)]
    for source in modules:
        for target in modules:
            heard = {found.event.__name__ for found in _heard(target) if _belongs(found.event, source)}
            if heard and source is not target:
                lines.append(f'    {source.short_name} -. "{", ".join(sorted(heard))}" .-> {target.short_name}')
    return "\n".join([*lines, "```", ""])


def _section(module: Module, modules: Sequence[Module], routes: Iterable[ListedRoute]) -> str:
    own_tasks = sorted(_of(module, tasks, lambda task: task.cls), key=lambda task: task.name)
    events = sorted(_of(module, _leaves(BaseEvent), lambda event: event), key=lambda event: event.__name__)
    tables: dict[str, Iterable[Entry]] = {
        "routes | what they do": _routes(module, routes),
        "gateway | what it answers": _gateway(module),
        "events out | what happened": [(event.__name__, _summary(event)) for event in events],
        "events in | what is done about it": [
            (found.event.__name__, f"{_summary(found.handler)} (`{found.name}`)")
            for found in sorted(_heard(module), key=lambda found: (found.event.__name__, found.name))
        ],
        "tasks | what they do": [(task.name, _summary(task.cls)) for task in own_tasks],
        "schedules | what runs": [
            (str(task.schedule), f"`{task.name}`") for task in own_tasks if task.schedule is not None
        ],
        "tables | what a row is": _tables(module, modules),
        "settings | default": _settings(module),
    }
    uses = ", ".join(f"[{_short(other)}](#{_short(other)})" for other in module.depends_on) or "no other module"
    offers = f" Exposes {', '.join(f'`{name}`' for name in module.public[1:])}." if module.public[1:] else ""
    lines = [f"## {module.short_name}", "", f"{module.summary} Uses {uses}.{offers}", ""]
    for heading, found in tables.items():
        if entries := [f"| `{_cell(name)}` | {_cell(text)} |" for name, text in found]:
            lines += [f"| {heading} |", "|---|---|", *entries, ""]
    return "\n".join(lines)


def _routes(module: Module, routes: Iterable[ListedRoute]) -> Iterator[Entry]:
    for route in _of(module, routes, lambda route: route.endpoint):
        summary = getattr(route.context.original_route, "summary", None) or _summary(route.endpoint)
        for method in sorted(route.methods - {"HEAD"}):
            yield f"{method} {route.path}", summary


def _gateway(module: Module) -> Iterator[Entry]:
    part = module.part("gateway") if not module.external else None
    for cls in vars(part).values() if part else ():
        if inspect.isabstract(cls) and _belongs(cls, module):
            for name in sorted(cls.__abstractmethods__):
                method = getattr(cls, name)
                yield f"{name}{_signature(method)}", _summary(method)


def _tables(module: Module, modules: Sequence[Module]) -> Iterator[Entry]:
    """Its models' tables, and those without a model that carry its prefix."""
    found = vars(module.models).values() if module.external and module.models else [BaseModel]
    bases = [item for item in found if isinstance(item, type) and issubclass(item, DeclarativeBase)]
    for registry in {base.registry for base in bases if base is not DeclarativeBase}:
        models = {mapper.local_table: mapper.class_ for mapper in registry.mappers}
        for name, table in sorted(registry.metadata.tables.items()):
            model = models.get(table)
            owner = table_owner(name, [one.short_name for one in modules])
            if _belongs(model, module) if model else owner == module.short_name:
                yield name, _summary(model) if model else ""


def _settings(module: Module) -> Iterator[Entry]:
    for config in _of(module, BaseConfig.known, lambda config: config):
        for name, field in config.model_fields.items():
            default = field.get_default()
            yield name, "required" if field.is_required() else "none" if default is None else f"`{default}`"


def _heard(module: Module) -> list[Any]:
    return _of(module, listeners, lambda found: found.handler)


def _of(module: Module, items: Iterable[T], definition: Callable[[T], Any]) -> list[T]:
    """The items whose definition is in the module."""
    return [item for item in items if _belongs(definition(item), module)]


def _belongs(definition: Any, module: Module) -> bool:
    return f"{getattr(definition, '__module__', '')}.".startswith(f"{module.name}.")


def _leaves(cls: type[Any]) -> Iterator[type[Any]]:
    """The subclasses that have no subclasses: a base shared by several events is none."""
    for subclass in cls.__subclasses__():
        yield from _leaves(subclass) if subclass.__subclasses__() else (subclass,)


def _signature(method: Callable[..., Any]) -> str:
    """The signature without `self`, and without the paths of the types."""
    signature = inspect.signature(method)
    parameters = list(signature.parameters.values())[1:]
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(signature.replace(parameters=parameters)))


def _summary(definition: Any) -> str:
    return inspect.cleandoc(definition.__doc__ or "").partition("\n")[0]


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
