"""Look after accounts."""

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from pydantic import SecretStr

from app.auth.config import get_auth_config
from app.auth.models import UserStatus
from app.auth.repositories import UserRepository
from app.auth.schemas.user import PasswordSet, UserCreate, UserUpdate
from app.auth.services import accounts, erasure
from app.auth.services.roles import RoleService
from app.auth.services.user import UserService
from app.core.configs import app_config
from app.core.db import session_scope

app = typer.Typer()

FromInput = Annotated[bool, typer.Option("--password-stdin", help="Read the password from the standard input.")]
Generate = Annotated[bool, typer.Option("--generate", help="Make a password, show it once.")]


@app.command()
async def create(
    email: Annotated[str, typer.Option(help="The address, taken as verified.")],
    username: Annotated[str, typer.Option(help="The user name.")],
    superuser: Annotated[bool, typer.Option("--superuser", help="May do everything.")] = False,
    password_stdin: FromInput = False,
    generate: Generate = False,
) -> None:
    """Make an account; asks for its password."""
    password = _password(password_stdin, generate)
    data = UserCreate(
        email=email, username=username, password=SecretStr(password), is_verified=True, is_superuser=superuser
    )
    async with session_scope() as db:
        service = accounts.operator_service(UserService)
        user = await service.create(data, db=db, by=None, must_change=generate and not app_config.is_relaxed)
    typer.echo(f"{'Superuser' if superuser else 'User'} {user.username} ({user.email}) has id {user.id}.")
    if generate:
        typer.echo(f"Password: {password} (shown only now)")


@app.command()
async def reset_password(
    login: Annotated[str, typer.Argument(help="The address or the user name.")],
    password_stdin: FromInput = False,
    generate: Generate = False,
) -> None:
    """Give an account another password; asks for it. Its sessions end, and links mailed to it are void."""
    password = _password(password_stdin, generate)
    new = PasswordSet(password=SecretStr(password)).password
    user = await accounts.reset_password(login, new, must_change=generate and not app_config.is_relaxed)
    typer.echo(f"{user.username} ({user.email}) has another password; every session has ended.")
    if not accounts.is_usable(user, get_auth_config()):
        typer.echo("The account cannot log in: it is disabled, or its address is not verified.")
    if generate:
        typer.echo(f"Password: {password} (shown only now)")


Role = Annotated[str, typer.Argument(help="The name of the role.")]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
Account = Annotated[str, typer.Argument(help="The address, the user name, or the id; digits are an id.")]


@app.command()
async def export(account: Account) -> None:
    """Write everything that is kept about a user to the standard output, as JSON."""
    user = await erasure.find_account(account, with_deleted=True)
    with await erasure.export_account(user.id) as file:
        shutil.copyfileobj(file, sys.stdout.buffer)


@app.command()
async def erase(
    account: Account, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Delete an account and erase, at once, what is kept about its user."""
    user = await erasure.find_account(account, with_deleted=True)
    if not yes:
        with _keyboard():
            typer.confirm(f"Erase {user.username} ({user.email}), id {user.id}, in every module?", abort=True)
    left = await erasure.erase_account(user.id)
    typer.echo(f"User {user.id} is erased{f'; {left} jobs have yet to run and go afterwards' if left else ''}.")


@app.command()
async def grant(account: Account, role: Role, as_json: Json = False) -> None:
    """Give an account a role."""
    user = await erasure.find_account(account)
    async with session_scope() as db:
        await accounts.operator_service(RoleService).grant(user.id, role, db=db, by=None)
    await _tell(user.id, as_json)


@app.command()
async def revoke(account: Account, role: Role, as_json: Json = False) -> None:
    """Take a role from an account; links mailed to it are void."""
    user = await erasure.find_account(account)
    async with session_scope() as db:
        await accounts.operator_service(RoleService).revoke(user.id, role, db=db, by=None)
    await _tell(user.id, as_json)


@app.command()
async def disable(account: Account, as_json: Json = False) -> None:
    """Disable an account and end its sessions."""
    await _set_status(account, UserStatus.DISABLED, as_json)


@app.command()
async def enable(account: Account, as_json: Json = False) -> None:
    """Enable an account that was disabled."""
    await _set_status(account, UserStatus.ACTIVE, as_json)


@app.command()
async def end_sessions(account: Account, as_json: Json = False) -> None:
    """End every session of an account; links mailed to it are void."""
    user = await erasure.find_account(account)
    async with session_scope() as db:
        ended = await accounts.operator_service(UserService).end_sessions(user.id, db=db, by=None)
    if not as_json:
        typer.echo(f"Sessions ended: {ended}.")
    await _tell(user.id, as_json, ended=ended)


async def _set_status(account: str, status: UserStatus, as_json: bool) -> None:
    user = await erasure.find_account(account)
    async with session_scope() as db:
        await accounts.operator_service(UserService).update(user.id, UserUpdate(status_id=status), db=db, by=None)
    await _tell(user.id, as_json)


async def _tell(user_id: int, as_json: bool, **facts: int) -> None:
    async with session_scope(read_only=True) as db:
        (user,) = await UserRepository().get_by_ids(db=db, ids=[user_id])
    status, roles = user.status_id.name.lower(), sorted(user.roles)
    if as_json:
        shown = {"id": user.id, "email": user.email, "username": user.username, "status": status, "roles": roles}
        typer.echo(json.dumps(shown | facts, indent=2))
    else:
        typer.echo(f"{user.username} ({user.email}), id {user.id}: {status}; roles: {', '.join(roles) or 'none'}")


def _password(from_input: bool, generate: bool) -> str:
    if from_input and generate:
        raise typer.BadParameter("choose one of --password-stdin and --generate")
    return get_auth_config().password_policy.generate() if generate else _given() if from_input else _asked()


def _given() -> str:
    try:
        return sys.stdin.buffer.readline().decode().rstrip("\r\n")
    except UnicodeDecodeError as exc:
        raise typer.BadParameter("the password is not UTF-8") from exc


def _asked() -> str:
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask for the password: --password-stdin or --generate")
    with _keyboard():
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password


@contextmanager
def _keyboard() -> Iterator[None]:
    """Let Ctrl-C end the wait: the event loop takes the first for a wish to cancel the task, which waits."""
    of_the_loop = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, of_the_loop)
