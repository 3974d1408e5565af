"""Checks of the interpreter, the packages, the lock, and of whether the settings can be read.

Nothing of the service is imported at the top: its settings may be what is broken.
"""

import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from app.cli.console import faults_of
from app.cli.doctor.findings import Finding, fault, ok, skipped

ROOT = Path(__file__).resolve().parents[3]
INSTALL = "make setup, or .venv/bin/pip install --require-hashes -r requirements.txt"
LOCK = "make lock"

_BOUND = re.compile(r"(>=|<)\s*(\d+\.\d+)")
_PIN = re.compile(r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[^ ;]+)(?P<marker>[^\\\n]*)", re.MULTILINE)
_ELSEWHERE = re.compile(r"platform|implementation|full_version")
_PROJECT_KEYS = ("requires-python", "dependencies", "optional-dependencies")
_POETRY_KEYS = ("dependencies", "source", "extras", "dev-dependencies", "group")


def python() -> Iterator[Finding]:
    """Check that the project is made for this interpreter."""
    project = ROOT / "pyproject.toml"
    wanted = tomllib.loads(project.read_text())["project"]["requires-python"] if project.is_file() else ""
    running = ".".join(map(str, sys.version_info[:3]))
    if all(_holds(sys.version_info[:2], *bound) for bound in _BOUND.findall(wanted)):
        yield ok(running)
    else:
        fix = "make clean && make setup PYTHON=/path/to/another"
        yield fault(f"{running} runs this, which is made for {wanted}", fix)


def _holds(running: tuple[int, ...], comparison: str, version: str) -> bool:
    bound = tuple(map(int, version.split(".")))
    return running >= bound if comparison == ">=" else running < bound


def packages() -> list[Finding]:
    """Check that each package is installed in the pinned version."""
    needed = _pins("requirements.txt")
    if not needed:
        return [skipped("there is no requirements.txt here")]
    drift = [*_drift(needed, may_miss=False), *_drift(_pins("requirements-dev.txt"), may_miss=True)]
    return [fault(what, INSTALL) for what in dict.fromkeys(drift)]


def _drift(pins: Iterable[re.Match[str]], *, may_miss: bool) -> Iterator[str]:
    for pin in pins:
        try:
            installed = version(pin["name"])
        except PackageNotFoundError:
            if not (may_miss or _ELSEWHERE.search(pin["marker"])):
                yield f"{pin['name']} {pin['version']} is not installed"
            continue
        if installed != pin["version"]:
            yield f"{pin['name']} is {installed}, pinned is {pin['version']}"


def lock() -> Iterator[Finding]:
    """Check that the lock belongs to what is declared, and the requirements to the lock."""
    if not all((ROOT / name).is_file() for name in ("pyproject.toml", "poetry.lock")):
        yield skipped("there is no poetry.lock here")
        return
    locked = tomllib.loads((ROOT / "poetry.lock").read_text())
    if content_hash(tomllib.loads((ROOT / "pyproject.toml").read_text())) != locked["metadata"]["content-hash"]:
        yield fault("poetry.lock is not what pyproject.toml declares", LOCK)
    versions = {package["name"].lower(): package["version"] for package in locked["package"]}
    for file in ("requirements.txt", "requirements-dev.txt"):
        for pin in _pins(file):
            other = versions.get(pin["name"].lower(), "nothing")
            if other != pin["version"]:
                yield fault(f"{file} pins {pin['name']} {pin['version']}, poetry.lock {other}", LOCK)


def content_hash(pyproject: dict[str, Any]) -> str:
    """Compute the fingerprint of the declared dependencies as Poetry does."""
    poetry = pyproject["tool"]["poetry"]
    relevant = {
        "project": {key: pyproject["project"][key] for key in _PROJECT_KEYS if key in pyproject["project"]},
        "dependency-groups": pyproject["dependency-groups"],
        "tool": {"poetry": {key: poetry[key] for key in _POETRY_KEYS if key in poetry}},
    }
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def _pins(file: str) -> list[re.Match[str]]:
    """The pins of the file; nothing where there is no such file."""
    path = ROOT / file
    return list(_PIN.finditer(path.read_text())) if path.is_file() else []


def server() -> list[Finding]:
    """Advice for those who do not use `kit run`."""
    return [ok("kit run limits header sections and stops in order; another server does not: docs/deployment.md")]


def unreadable_settings() -> list[Finding]:
    """A fault for each setting of core and modules that cannot be read."""
    from pydantic import ValidationError

    from app.core.exceptions import ConfigError

    lines = []
    try:
        from app.core.configs import BaseConfig
        from app.core.modules import parts

        list(parts("config"))
        for config in BaseConfig.known:
            config()
    except ConfigError as exc:
        lines = str(exc).splitlines()
    except ValidationError as exc:
        lines = faults_of(exc)
    return [fault(line, "correct it in the environment or in .env: .sample.env") for line in lines]
