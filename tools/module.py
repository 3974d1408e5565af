"""`kit module`."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from app.cli.console import say, settings_errors, show_json
from tools.api import write_document
from tools.generators.commands import new, remove

app = typer.Typer(help="List, generate and remove modules, check and map their boundaries.", no_args_is_help=True)
app.command()(new)
app.command()(remove)

Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


@app.command("list")
def list_modules(as_json: Json = False) -> None:
    """List the modules in load order, those that MODULES leaves out last."""
    with settings_errors():
        from app.core.modules import installed_modules, present_modules

        installed = installed_modules()
        left_out = [module for module in present_modules() if module not in installed]
    rows: list[dict[str, Any]] = [
        {
            "name": module.name,
            "state": "left out" if module in left_out else "external" if module.external else "installed",
            "migrations": module.migrations,
            "depends_on": module.depends_on,
            "exposes": module.manifest.exposes,
            "summary": module.summary,
        }
        for module in (*installed, *left_out)
    ]
    if as_json:
        show_json(rows)
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        lists = (("uses", row["depends_on"]), ("exposes", row["exposes"]))
        uses = "".join(f", {verb} {', '.join(names)}" for verb, names in lists if names)
        name = typer.style(row["name"].ljust(width), bold=True)
        typer.echo(f"{name}  {row['state']}, {row['migrations']} migrations{uses}")
        typer.echo(f"{' ' * width}  {row['summary']}")


@app.command()
def validate(as_json: Json = False) -> None:
    """Check manifests and boundaries: M1 to M8 for every module in app/, E1 for installed packages.

    P1 is a warning: a module keeps ids of users and answers neither export nor erasure of their data.
    """
    with settings_errors():
        from app.core.configs import app_config
        from app.core.exceptions import ConfigError
    from app.core.modules import discover
    from app.core.modules.module import ExternalModule
    from tools.boundaries import Violation, boundary_violations, isolation_violations, personal_data_warnings

    found: list[Violation] = []
    warnings: list[Violation] = []
    faults: list[str] = []  # reasons why the modules cannot be loaded
    try:
        found += boundary_violations()
        warnings += personal_data_warnings()
        for module in discover(app_config.MODULES):
            found += isolation_violations(module) if isinstance(module, ExternalModule) else []
    except ConfigError as exc:
        faults = str(exc).splitlines()
    if as_json:
        violations = [[asdict(violation) for violation in each] for each in (found, warnings)]
        show_json({"violations": violations[0], "warnings": violations[1], "faults": faults})
    else:
        for violation in (*found, *warnings):
            color = typer.colors.YELLOW if violation in warnings else typer.colors.RED
            typer.secho(f"{violation.file}:{violation.line}: {violation.rule} {violation.message}", fg=color)
            typer.echo(f"    Fix: {violation.fix}.")
        for fault in faults:
            typer.secho(fault, fg=typer.colors.RED, err=True)
    if found or faults:
        raise typer.Exit(1)
    if not as_json:
        say("Every boundary holds.")


@app.command()
def docs(check: Annotated[bool, typer.Option("--check", help="Compare instead of writing.")] = False) -> None:
    """Write the map of the modules to docs/module-map.md."""

    def render() -> str:
        from tools.module_map import module_map

        return module_map()

    write_document("module-map.md", render, "kit module docs", check=check)
