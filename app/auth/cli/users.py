"""Look after accounts."""

import secrets
import signal
import sys
from typing import Annotated

import typer
from pydantic import SecretStr

from app.auth.schemas.user import UserCreate
from app.auth.services.operator import create_account

app = typer.Typer()


@app.command()
async def create(
    email: Annotated[str, typer.Option(help="The address, taken as verified.")],
    username: Annotated[str, typer.Option(help="The user name.")],
    superuser: Annotated[bool, typer.Option("--superuser", help="May do everything.")] = False,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from the standard input.")
    ] = False,
    generate: Annotated[bool, typer.Option("--generate", help="Make a password, and show it once.")] = False,
) -> None:
    """Make an account; asks for its password."""
    if password_stdin and generate:
        raise typer.BadParameter("choose one of --password-stdin and --generate")
    password = secrets.token_urlsafe(12) if generate else _given() if password_stdin else _asked()
    data = UserCreate(
        email=email, username=username, password=SecretStr(password), is_verified=True, is_superuser=superuser
    )
    user = await create_account(data)
    typer.echo(f"{'Superuser' if superuser else 'User'} {user.username} ({user.email}) has id {user.id}.")
    if generate:
        typer.echo(f"Password: {password} (shown only now)")


def _given() -> str:
    try:
        return sys.stdin.buffer.readline().decode().rstrip("\r\n")
    except UnicodeDecodeError as exc:
        raise typer.BadParameter("the password is not UTF-8") from exc


def _asked() -> str:
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask for the password: --password-stdin or --generate")
    # The event loop takes the first Ctrl-C for a wish to cancel the task, which waits for the keyboard.
    of_the_loop = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    finally:
        signal.signal(signal.SIGINT, of_the_loop)
    return password
