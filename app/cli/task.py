"""`kit task`."""

import difflib
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.console import fail, load_registries, load_settings, show_json, show_table, with_runtime

if TYPE_CHECKING:
    from app.core.runtime import Runtime
    from app.core.services.queue.registry import RegisteredTask

task = typer.Typer(help="See which tasks there are, and run one.", no_args_is_help=True)


@task.command("list")
def list_tasks(as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False) -> None:
    """List every task, the data it takes and when it runs by itself."""
    load_settings()
    load_registries()
    from app.core.services.queue.registry import tasks

    described = [_describe(each) for each in sorted(tasks, key=lambda each: each.name)]
    if as_json:
        show_json(described)
    else:
        rows = [(each["name"], ", ".join(each["data"]), each["schedule"], each["summary"]) for each in described]
        show_table(("TASK", "DATA", "SCHEDULE", ""), rows)


@task.command()
def run(
    name: Annotated[str, typer.Argument(help="As `kit task list` shows it.")],
    data: Annotated[str, typer.Option(metavar="JSON", help="An object with what its `run` takes.")] = "{}",
    queue: Annotated[bool, typer.Option("--queue", help="Store it for whoever runs jobs, and print its id.")] = False,
) -> None:
    """Run a task here and now, without storing it, and print its result."""
    given = _object(data)
    load_settings()
    load_registries()
    found = _find(name)
    payload = _payload(found, given)

    async def push(opened: "Runtime") -> Any:
        return await opened.queue.push(found.cls, given)

    async def run_here(_: "Runtime") -> Any:
        from app.core.services.failures import describe
        from app.core.services.log.context import correlation, new_id
        from app.core.services.queue.execution import run_task

        with correlation(new_id(), new_id()):
            try:
                return await run_task(found, found.load(payload))
            except Exception as exc:
                fail(f"{found.name} failed: {describe(exc)}")

    show_json(with_runtime(push if queue else run_here))


def _find(name: str) -> "RegisteredTask":
    from app.core.services.queue.registry import UnknownTask, tasks

    try:
        return tasks.get(name)
    except UnknownTask:
        close = difflib.get_close_matches(name, [each.name for each in tasks])
        hint = f"did you mean {' or '.join(close)}?" if close else "`kit task list` shows them all."
        fail(f"There is no task {name!r}; {hint}")


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as exc:
        fail(f"--data is no JSON: {exc}.")
    if not isinstance(value, dict):
        fail("--data is no JSON object, as in '{\"user_id\": 1}'.")
    return value


def _payload(found: "RegisteredTask", given: dict[str, Any]) -> dict[str, Any]:
    from app.core.services.queue.registry import TaskDataError

    try:
        return found.dump(given)
    except TaskDataError as exc:
        fail(f"{exc}. It takes: {', '.join(_data(found)) or 'nothing'}.")


def _describe(found: "RegisteredTask") -> dict[str, Any]:
    cls = found.cls
    return {
        "name": found.name,
        "data": _data(found),
        "schedule": None if found.schedule is None else str(found.schedule),
        "max_attempts": cls.max_attempts,
        "backoff": cls.backoff,
        "timeout": cls.timeout,
        "summary": (cls.__doc__ or "").strip().partition("\n")[0],
    }


def _data(found: "RegisteredTask") -> list[str]:
    """The parameters of the task's `run` that are pushed."""
    import inspect

    from app.core.services.queue.injection import dependencies_of

    run = found.cls.run
    parameters = list(inspect.signature(run).parameters.values())[1:]  # without self
    return [str(parameter) for parameter in parameters if parameter.name not in dependencies_of(run)]
