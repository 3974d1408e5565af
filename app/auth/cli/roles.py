"""Look after roles and permissions."""

import json
from typing import Annotated, Any

import typer

from app.auth.schemas.role import RoleCreate, RoleRead, RoleUpdate
from app.auth.services.accounts import operator_service
from app.auth.services.roles import RoleService
from app.core.db import session_scope

app = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="ROLE", help="The name of the role.")]
Permissions = Annotated[list[str], typer.Argument(metavar="PERMISSION...", help="Such as users:read.")]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


@app.command("list")
async def list_roles(as_json: Json = False) -> None:
    """List the roles and what they hold."""
    async with session_scope(read_only=True) as db:
        found = await operator_service(RoleService).get_list(db=db)
    _show([role.model_dump(mode="json") for role in found], "\n".join(map(_line, found)), as_json)


@app.command()
async def permissions(as_json: Json = False) -> None:
    """List the permissions that modules declare, and those that one did before."""
    async with session_scope(read_only=True) as db:
        found = await operator_service(RoleService).get_permissions(db=db)
    gone = {False: " (no module declares it)", True: ""}
    lines = (f"{one.name}: {one.description}{gone[one.is_declared]}" for one in found)
    _show([one.model_dump() for one in found], "\n".join(lines), as_json)


@app.command()
async def show(name: Name, as_json: Json = False) -> None:
    """Show one role."""
    async with session_scope(read_only=True) as db:
        role = await operator_service(RoleService).get(db=db, name=name)
    _show(role.model_dump(mode="json"), _line(role), as_json)


@app.command()
async def create(
    name: Name,
    permission: Annotated[list[str] | None, typer.Option(help="What it holds; may be repeated.")] = None,
    description: Annotated[str, typer.Option(help="A text for people.")] = "",
    as_json: Json = False,
) -> None:
    """Make a role."""
    data = RoleCreate(name=name, description=description, permissions=permission or [])
    async with session_scope() as db:
        role = await operator_service(RoleService).create(data, db=db, by=None)
    _show(role.model_dump(mode="json"), _line(role), as_json)


@app.command()
async def add(name: Name, permissions: Permissions, as_json: Json = False) -> None:
    """Have a role hold more permissions."""
    await _change(name, permissions, [], as_json)


@app.command()
async def remove(name: Name, permissions: Permissions, as_json: Json = False) -> None:
    """Take permissions from a role."""
    await _change(name, [], permissions, as_json)


@app.command()
async def delete(name: Name) -> None:
    """Delete a role that no account has."""
    service = operator_service(RoleService)
    async with session_scope() as db:
        await service.delete((await service.get(db=db, name=name)).id, db=db, by=None)
    typer.echo(f"The role {name} is deleted.")


async def _change(name: str, added: list[str], removed: list[str], as_json: bool) -> None:
    service = operator_service(RoleService)
    async with session_scope() as db:
        role = await service.get(db=db, name=name)
        changes = RoleUpdate(permissions=sorted({*role.permissions, *added} - set(removed)))
        role = await service.update(role.id, changes, db=db, by=None)
    _show(role.model_dump(mode="json"), _line(role), as_json)


def _line(role: RoleRead) -> str:
    text = f" ({role.description})" if role.description else ""
    return f"{role.name}{text}: {', '.join(role.permissions) or 'no permission'}"


def _show(value: Any, text: str, as_json: bool) -> None:
    typer.echo(json.dumps(value, indent=2) if as_json else text)
