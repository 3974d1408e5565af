"""`kit jobs`."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.console import fail, load_settings, say, show_json, show_table, with_runtime

if TYPE_CHECKING:
    from app.core.db.jobs import Job, JobStatus
    from app.core.runtime import Runtime

jobs = typer.Typer(help="Look at jobs and decide what becomes of them.", no_args_is_help=True)

Id = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1)]
Ids = Annotated[list[int] | None, typer.Argument(metavar="ID...", min=1, max=2**63 - 1)]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]

_AGE = re.compile(r"(\d{1,5})([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


@jobs.command("list")
def list_jobs(
    status: Annotated[list[str] | None, typer.Option(help="Only jobs of this status; may be repeated.")] = None,
    task: Annotated[str | None, typer.Option(help="Only jobs of this task.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    load_settings()
    statuses = _statuses(status or [])

    async def read(opened: "Runtime") -> "Sequence[Job]":
        from app.core.services.queue.store import find_jobs

        async with opened.database.session_scope(read_only=True) as db:
            return await find_jobs(db=db, statuses=statuses, task=task, limit=limit)

    found = with_runtime(read)
    if as_json:
        show_json([job.to_dict(exclude=("payload", "result")) | job.heard for job in found])
    elif not found:
        typer.echo("No job fits.")
    else:
        headings = ("ID", "TASK", "STATUS", "ATTEMPTS", "CREATED", "DUE", "LAST ERROR")
        show_table(headings, [_row(job) for job in found])


@jobs.command()
def show(job_id: Id, as_json: Json = False) -> None:
    """Show everything about one job, its data too."""

    async def read(opened: "Runtime") -> "Job | None":
        from app.core.db.jobs import Job

        async with opened.database.session_scope(read_only=True) as db:
            return await db.get(Job, job_id)

    job = with_runtime(read)
    if job is None:
        fail(_unknown([job_id]))
    if as_json:
        show_json(job.to_dict() | job.heard)
    else:
        heard = {name: value for name, value in job.heard.items() if value}
        show_table(("FIELD", "VALUE"), (job.to_dict(exclude=("payload", "result")) | heard).items())
        for name in ("payload", "result"):
            typer.echo(f"\n{name}")
            show_json(getattr(job, name))


@jobs.command()
def retry(
    ids: Ids = None,
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
def cancel(ids: Annotated[list[int], typer.Argument(metavar="ID...", min=1, max=2**63 - 1)]) -> None:
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
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Since when finished: 7d, 12h or 30m.")],
    dead: Annotated[bool, typer.Option("--dead", help="Dead jobs too; they stay otherwise.")] = False,
) -> None:
    """Remove completed and cancelled jobs."""
    age = _age(older_than)

    async def work(opened: "Runtime") -> "dict[JobStatus, int]":
        from app.core.db.base import utcnow
        from app.core.services.queue.store import purge_jobs

        async with opened.database.session_scope() as db:
            return await purge_jobs(db=db, before=utcnow() - age, dead=dead)

    removed = with_runtime(work)
    say(f"Removed: {', '.join(f'{count} {status}' for status, count in removed.items())}.")


def _statuses(names: Sequence[str]) -> "list[JobStatus]":
    from app.core.db.jobs import JobStatus

    if unknown := set(names) - set(JobStatus):
        fail(f"There is no status {', '.join(sorted(unknown))}: it is one of {', '.join(JobStatus)}.")
    return [JobStatus(name) for name in names]


def _row(job: "Job") -> tuple[object, ...]:
    due = _moment(job.available_at) if job.finished_at is None else ""
    error = (job.last_error or "")[:100]
    attempts = f"{job.attempts}/{job.max_attempts}"
    event, listener = job.heard.values()
    what = f"{event} -> {listener}" if listener else job.task
    return job.id, what, job.status, attempts, _moment(job.created_at), due, error


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _report(ids: Sequence[int], done: Sequence[int], states: "dict[int, JobStatus]", otherwise: str) -> None:
    for job_id in dict.fromkeys(ids):
        if job_id in states and job_id not in done:
            typer.echo(f"Job {job_id} is {states[job_id]}: {otherwise}.")
    if unknown := [job_id for job_id in dict.fromkeys(ids) if job_id not in states]:
        fail(_unknown(unknown))


def _unknown(ids: Sequence[int]) -> str:
    return f"There is no job {', '.join(map(str, ids))}."


def _jobs(ids: Sequence[int]) -> str:
    return f"Job {ids[0]} is" if len(ids) == 1 else f"{len(ids)} jobs are"


def _age(text: str) -> timedelta:
    found = _AGE.fullmatch(text)
    if not found:
        fail(f"{text!r} is no age: write 7d, 12h or 30m.")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
