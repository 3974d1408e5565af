"""`kit jobs` and `kit task`."""

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.console import fail, load_registries, load_settings, say, show_json, show_table, with_runtime

if TYPE_CHECKING:
    from app.core.db.jobs import Job, JobStatus
    from app.core.runtime import Runtime
    from app.core.services.queue.limits import QueueState
    from app.core.services.queue.registry import RegisteredTask

jobs = typer.Typer(help="Inspect, retry, cancel and purge jobs; pause queues.", no_args_is_help=True)
task = typer.Typer(help="List tasks, and run one.", no_args_is_help=True)

_ID = typer.Argument(metavar="ID", min=1, max=2**63 - 1)
_IDS = typer.Argument(metavar="ID...", min=1, max=2**63 - 1)
_QUEUE = typer.Argument(metavar="QUEUE")
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]

_AGE = re.compile(r"(\d{1,5})([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


@jobs.command("list")
def list_jobs(
    status: Annotated[list[str] | None, typer.Option(help="Only jobs of this status; may be repeated.")] = None,
    task: Annotated[str | None, typer.Option(help="Only jobs of this task.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only jobs of this queue.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    load_settings()
    from app.core.db.jobs import JobStatus
    from app.core.services.queue.store import find_jobs

    if unknown := set(status or ()) - set(JobStatus):
        fail(f"There is no status {', '.join(sorted(unknown))}: it is one of {', '.join(JobStatus)}.")
    statuses = [JobStatus(name) for name in status or ()]

    async def read(opened: "Runtime") -> "Sequence[Job]":
        async with opened.database.session_scope(read_only=True) as db:
            return await find_jobs(db=db, statuses=statuses, task=task, queue=queue, limit=limit)

    found = with_runtime(read)
    if as_json:
        show_json([job.to_dict(exclude=("payload", "result")) | job.heard for job in found])
    elif not found:
        typer.echo("No job fits.")
    else:
        headings = ("ID", "TASK", "STATUS", "ATTEMPTS", "QUEUE", "PRIORITY", "CREATED", "DUE", "LAST ERROR")
        show_table(headings, [_row(job) for job in found])


@jobs.command()
def show(job_id: Annotated[int, _ID], as_json: Json = False) -> None:
    """Show everything about one job, its data too."""

    async def read(opened: "Runtime") -> "Job | None":
        from app.core.db.jobs import Job

        async with opened.database.session_scope(read_only=True) as db:
            return await db.get(Job, job_id)

    job = with_runtime(read)
    if job is None:
        fail(f"There is no job {job_id}.")
    if as_json:
        show_json(job.to_dict() | job.heard)
        return
    heard = {name: value for name, value in job.heard.items() if value}
    show_table(("FIELD", "VALUE"), (job.to_dict(exclude=("payload", "result")) | heard).items())
    for name in ("payload", "result"):
        typer.echo(f"\n{name}")
        show_json(getattr(job, name))


@jobs.command()
def retry(
    ids: Annotated[list[int] | None, _IDS] = None,
    all_dead: Annotated[bool, typer.Option("--all-dead", help="Every job that was given up.")] = False,
    task: Annotated[str | None, typer.Option(help="With --all-dead: only jobs of this task.")] = None,
) -> None:
    """Run failed, dead or cancelled jobs again, now and with all their attempts."""
    if bool(ids) == all_dead or (task and not all_dead):
        fail("Name the jobs by id, or give --all-dead, with --task if wished.")

    async def work(opened: "Runtime") -> "tuple[list[int], dict[int, JobStatus], bool]":
        from app.core.services.queue.broker import wake_workers
        from app.core.services.queue.store import retry_dead_jobs, retry_jobs, statuses_of

        async with opened.database.session_scope() as db:
            states = await statuses_of(db=db, ids=ids or [])
            done = await retry_jobs(db=db, ids=ids) if ids else await retry_dead_jobs(db=db, task=task)
        woken = bool(done and opened.redis) and await wake_workers(opened.broker, done)
        return done, states, woken

    done, states, woken = with_runtime(work)
    say(f"{_jobs(done)} due now." if done else "Nothing to run again.")
    if done:
        say("A worker is told." if woken else "Whoever runs jobs finds them at the next look.")
    _report(ids or [], done, states, "not run again: only what failed, died or was cancelled is, once per key")


@jobs.command()
def cancel(ids: Annotated[list[int], _IDS]) -> None:
    """Cancel jobs that have not started."""

    async def work(opened: "Runtime") -> "tuple[list[int], dict[int, JobStatus]]":
        from app.core.services.queue.store import statuses_of

        async with opened.database.session_scope() as db:
            states = await statuses_of(db=db, ids=ids)
            return [job_id for job_id in ids if await opened.queue.cancel(job_id)], states

    done, states = with_runtime(work)
    say(f"{_jobs(done)} cancelled." if done else "Nothing to cancel.")
    _report(ids, done, states, "not cancelled")


@jobs.command()
def purge(
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Time since they finished: 7d, 12h or 30m.")],
    dead: Annotated[bool, typer.Option("--dead", help="Dead jobs too; they stay otherwise.")] = False,
) -> None:
    """Remove completed and cancelled jobs."""
    found = _AGE.fullmatch(older_than)
    if not found:
        fail(f"{older_than!r} is no age: write 7d, 12h or 30m.")
    age = timedelta(**{_UNITS[found[2]]: int(found[1])})

    async def work(opened: "Runtime") -> "dict[JobStatus, int]":
        from app.core.services.queue.store import purge_jobs

        async with opened.database.session_scope() as db:
            return await purge_jobs(db=db, older_than=age, dead=dead)

    removed = with_runtime(work)
    say(f"Removed: {', '.join(f'{count} {status}' for status, count in removed.items())}.")


@jobs.command("queues")
def list_queues(as_json: Json = False) -> None:
    """List queues with their unfinished, due and running jobs, the longest wait, and whether they are paused."""

    async def read(opened: "Runtime") -> "tuple[Sequence[QueueState], datetime]":
        from sqlalchemy import select

        from app.core.db.base import db_now
        from app.core.services.queue.limits import queue_states
        from app.core.services.queue.registry import tasks

        known = opened.runner.queues.known(each.cls.queue for each in tasks)
        async with opened.database.session_scope(read_only=True) as db:
            return await queue_states(db=db, queues=known), (await db.scalars(select(db_now()))).one()

    states, now = with_runtime(read)
    if as_json:
        show_json([asdict(state) for state in states])
        return
    rows = []
    for state in states:
        waits = f"{(now - state.oldest).total_seconds():.0f} s" if state.oldest else ""
        rows.append((state.queue, state.depth, state.due, state.running, waits, "paused" if state.paused else ""))
    show_table(("QUEUE", "UNFINISHED", "DUE", "RUNNING", "OLDEST WAITS", ""), rows)


@jobs.command()
def pause(queue: Annotated[str, _QUEUE]) -> None:
    """Pause a queue in every process: start no more of its jobs; running ones continue."""
    _set_paused(queue, paused=True)


@jobs.command()
def resume(queue: Annotated[str, _QUEUE]) -> None:
    """Resume a paused queue."""
    _set_paused(queue, paused=False)


def _set_paused(queue: str, *, paused: bool) -> None:
    from app.core.configs.app import QUEUE_NAME

    if not QUEUE_NAME.fullmatch(queue):
        fail(f"{queue!r} cannot be a queue: small letters, digits, '-', '_' and '.', 64 at most.")

    async def work(opened: "Runtime") -> bool:
        from app.core.services.queue.limits import pause_queue

        async with opened.database.session_scope() as db:
            return await pause_queue(db=db, queue=queue, paused=paused)

    state = "paused" if paused else "not paused"
    say(f"Queue {queue} is {state}." if with_runtime(work) else f"Queue {queue} was {state} already.")


def _row(job: "Job") -> tuple[object, ...]:
    due = _moment(job.available_at) if job.finished_at is None else ""
    error = (job.last_error or "")[:100]
    attempts = f"{job.attempts}/{job.max_attempts}"
    event, listener = job.heard.values()
    what = f"{event} -> {listener}" if listener else job.task
    return job.id, what, job.status, attempts, job.queue, job.priority, _moment(job.created_at), due, error


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _jobs(ids: Sequence[int]) -> str:
    return f"Job {ids[0]} is" if len(ids) == 1 else f"{len(ids)} jobs are"


def _report(ids: Sequence[int], done: Sequence[int], states: "dict[int, JobStatus]", otherwise: str) -> None:
    asked = dict.fromkeys(ids)
    for job_id in asked:
        if job_id in states and job_id not in done:
            typer.echo(f"Job {job_id} is {states[job_id]}: {otherwise}.")
    if unknown := [str(job_id) for job_id in asked if job_id not in states]:
        fail(f"There is no job {', '.join(unknown)}.")


@task.command("list")
def list_tasks(as_json: Json = False) -> None:
    """List every task, the data it takes and its schedule."""
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
    try:
        given = json.loads(data)
    except ValueError as exc:
        fail(f"--data is no JSON: {exc}.")
    if not isinstance(given, dict):
        fail("--data is no JSON object, as in '{\"user_id\": 1}'.")
    load_settings()
    load_registries()
    found, payload = _find(name, given)

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


def _find(name: str, given: dict[str, Any]) -> "tuple[RegisteredTask, dict[str, Any]]":
    from app.core.services.queue.registry import TaskDataError, UnknownTask, tasks

    try:
        found = tasks.get(name)
        return found, found.dump(given)
    except UnknownTask:
        close = difflib.get_close_matches(name, [each.name for each in tasks])
        hint = f"did you mean {' or '.join(close)}?" if close else "`kit task list` shows them all."
        fail(f"There is no task {name!r}; {hint}")
    except TaskDataError as exc:
        fail(f"{exc}. It takes: {', '.join(map(str, found.parameters)) or 'nothing'}.")


def _describe(found: "RegisteredTask") -> dict[str, Any]:
    cls = found.cls
    return {
        "name": found.name,
        "data": [str(parameter) for parameter in found.parameters],
        "schedule": None if found.schedule is None else str(found.schedule),
        **{name: getattr(cls, name) for name in ("queue", "priority", "max_attempts", "backoff", "timeout")},
        "summary": (cls.__doc__ or "").strip().partition("\n")[0],
    }
