"""`kit mail`."""

import difflib
import inspect
import json
import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.console import fail, load_registries, load_settings, show_json, show_table

if TYPE_CHECKING:
    from app.core.configs import AppConfig
    from app.core.services.mail import BaseTemplate

mail = typer.Typer(help="Preview the mails of this service.", no_args_is_help=True)


@mail.command()
def preview(
    template: Annotated[str | None, typer.Argument(help="The template's class; without one they are listed.")] = None,
    *,
    html: Annotated[bool, typer.Option("--html", help="Only the HTML part.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Only the text part.")] = False,
    data: Annotated[str, typer.Option(help='Values instead of the samples: \'{"username": "bob"}\'.')] = "{}",
    output: Annotated[Path | None, typer.Option(help="Write .html, .txt and .eml files into this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Render a mail with sample data."""
    settings = load_settings()
    known = _known_templates()
    if template is None:
        rows = [
            {"name": name, "template": kind.template_name(), "description": (kind.__doc__ or "").partition("\n")[0]}
            for name, kind in sorted(known.items())
        ]
        if as_json:
            show_json(rows)
        else:
            show_table(("NAME", "TEMPLATE", "DESCRIPTION"), [tuple(row.values()) for row in rows])
        return
    name = _find(template, known)
    parts = _render(name, _fill(name, known[name], data), settings)
    files = _write(output, name, parts) if output else []
    if as_json:
        content = {key: parts[key].decode() for key in ("html", "text")}
        show_json({"template": known[name].template_name(), **content, "files": files})
    elif files:
        typer.echo("\n".join(files))
    else:
        wanted = [key for key, chosen in (("html", html), ("text", text)) if chosen] or ["html", "text"]
        for key in wanted:
            if len(wanted) > 1:
                typer.secho(f"--- {key} ---", bold=True)
            typer.echo(parts[key].decode().rstrip("\n"))


def _known_templates() -> "dict[str, type[BaseTemplate]]":
    """Every template of every module, by its class name, or by its full name where several share the class name."""
    from app.core.services.mail import BaseTemplate

    load_registries()
    found = [kind for kind in BaseTemplate.known.values() if not inspect.isabstract(kind)]
    often = Counter(kind.__qualname__ for kind in found)
    return {kind.__qualname__ if often[kind.__qualname__] == 1 else kind.template_name(): kind for kind in found}


def _find(wanted: str, known: "Mapping[str, type[BaseTemplate]]") -> str:
    names = {key.lower(): name for name, kind in known.items() for key in (name, kind.template_name())}
    found = names.get(wanted.lower())
    if found is None:
        close = [names[key] for key in difflib.get_close_matches(wanted.lower(), names, n=3)]
        hint = f"Did you mean {' or '.join(close)}?" if close else "`kit mail preview` lists them."
        fail(f"No template is called {wanted!r}. {hint}")
    return found


def _fill(name: str, kind: "type[BaseTemplate]", data: str) -> "BaseTemplate":
    from pydantic import ValidationError
    from pydantic.errors import PydanticInvalidForJsonSchema

    from app.core.services.failures import describe_faults
    from tools.mail_samples import parameters_of, sample_of, template_of

    try:
        given = json.loads(data)
    except (ValueError, RecursionError) as exc:
        fail(f"--data is not JSON: {exc}")
    if not isinstance(given, dict):
        fail('--data must be a JSON object, for example \'{"username": "bob"}\'.')
    fields = [field.alias or key for key, field in parameters_of(kind).model_fields.items()]
    if unknown := sorted(set(given) - set(fields)):
        fail(f"{name} has no field {', '.join(unknown)}: it has {', '.join(fields) or 'none'}.")
    try:
        sample = sample_of(kind)
    except (ValidationError, PydanticInvalidForJsonSchema) as exc:
        reason = describe_faults(exc) if isinstance(exc, ValidationError) else str(exc).partition("\n")[0]
        fail(f"{name} has no sample ({reason}): give its fields examples, Field(examples=[...]), or write sample().")
    try:
        shown = {name: value for name, value in vars(sample).items() if name in fields}
        return template_of(kind, {**shown, **sample.model_dump(by_alias=True), **given})
    except ValidationError as exc:
        fail(f"--data does not fit {name}: {describe_faults(exc)}")


def _render(name: str, template: "BaseTemplate", settings: "AppConfig") -> dict[str, bytes]:
    from app.core.services.mail import EmailData, Sender
    from app.core.services.mail.message import compose, render

    sender = Sender(settings.EMAIL_SENDER_NAME, settings.EMAIL_SENDER_ADDRESS, settings.DOMAIN)
    envelope = EmailData(subject=f"Preview of {name}"[:200], recipients=["ann@example.com"])
    try:
        html, text = render(template)
        (outgoing,) = compose(template, envelope, sender)
    except Exception as exc:  # a view can raise anything
        lines = [f"{frame.filename}:{frame.lineno}: " for frame in traceback.extract_tb(exc.__traceback__)]
        where = [line for line in lines if line.startswith(str(template._get_dir()))][-1:]
        fail(f"{name} cannot be rendered: {''.join(where)}{type(exc).__name__}: {exc}")
    return {"html": html.encode(), "text": text.encode(), "eml": outgoing.message.as_bytes()}


def _write(folder: Path, name: str, parts: Mapping[str, bytes]) -> list[str]:
    stem = name.rpartition(":")[2]
    files = {folder / f"{stem}.{'txt' if key == 'text' else key}": content for key, content in parts.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            path.write_bytes(content)
    except OSError as exc:
        fail(f"{folder} cannot be written: {exc.strerror}.")
    return [str(path) for path in files]
