"""Whether what is installed is what is locked, and what is locked what is declared."""

import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from app.cli.doctor.findings import Finding, fault, ok, or_ok, skipped

ROOT = Path(__file__).resolve().parents[3]  # not from the settings: they may be what is broken
INSTALL = "make setup, or .venv/bin/pip install --require-hashes -r requirements.txt"
LOCK = "make lock"

_BOUND = re.compile(r"(>=|<)\s*(\d+\.\d+)")
_PIN = re.compile(r"^(?P<name>[\w.-]+)(?:\[[\w,-]+\])?==(?P<version>[^ ;]+)(?P<marker>[^\\\n]*)", re.MULTILINE)
_ELSEWHERE = re.compile(r"platform|implementation|full_version")
_PROJECT_KEYS = ("requires-python", "dependencies", "optional-dependencies")
_POETRY_KEYS = ("dependencies", "source", "extras", "dev-dependencies", "group")


def python() -> Iterator[Finding]:
    """The interpreter is one that the project is made for."""
    project = ROOT / "pyproject.toml"
    wanted = tomllib.loads(project.read_text())["project"]["requires-python"] if project.is_file() else ""
    running = ".".join(map(str, sys.version_info[:3]))
    if all(_holds(sys.version_info[:2], *bound) for bound in _BOUND.findall(wanted)):
        yield ok("python", running)
    else:
        fix = "make clean && make setup PYTHON=/path/to/another"
        yield fault("python", f"{running} runs this, which is made for {wanted}", fix)


def _holds(running: tuple[int, ...], comparison: str, version: str) -> bool:
    bound = tuple(map(int, version.split(".")))
    return running >= bound if comparison == ">=" else running < bound


def packages() -> list[Finding]:
    """Every package is there in the version that is pinned."""
    needed = _pins("requirements.txt")
    if not needed:
        return [skipped("packages", "there is no requirements.txt here")]
    faults = [*_drift(needed, may_miss=False), *_drift(_pins("requirements-dev.txt"), may_miss=True)]
    return or_ok("packages", dict.fromkeys(faults), "the pinned versions are installed")


def _drift(pins: Iterable[re.Match[str]], *, may_miss: bool) -> Iterator[Finding]:
    for pin in pins:
        try:
            installed = version(pin["name"])
        except PackageNotFoundError:
            if not (may_miss or _ELSEWHERE.search(pin["marker"])):
                yield fault("packages", f"{pin['name']} {pin['version']} is not installed", INSTALL)
            continue
        if installed != pin["version"]:
            yield fault("packages", f"{pin['name']} is {installed}, pinned is {pin['version']}", INSTALL)


def lock() -> list[Finding]:
    """The lock belongs to what is declared, and the requirements to the lock."""
    if not all((ROOT / name).is_file() for name in ("pyproject.toml", "poetry.lock")):
        return [skipped("lock", "there is no poetry.lock here")]
    return or_ok("lock", _behind(), "poetry.lock and requirements are what is declared")


def _behind() -> Iterator[Finding]:
    locked = tomllib.loads((ROOT / "poetry.lock").read_text())
    if content_hash(tomllib.loads((ROOT / "pyproject.toml").read_text())) != locked["metadata"]["content-hash"]:
        yield fault("lock", "poetry.lock is not what pyproject.toml declares", LOCK)
    versions = {package["name"].lower(): package["version"] for package in locked["package"]}
    for file in ("requirements.txt", "requirements-dev.txt"):
        for pin in _pins(file):
            other = versions.get(pin["name"].lower(), "nothing")
            if other != pin["version"]:
                yield fault("lock", f"{file} pins {pin['name']} {pin['version']}, poetry.lock {other}", LOCK)


def content_hash(pyproject: dict[str, Any]) -> str:
    """The fingerprint of the declared dependencies, computed as Poetry does."""
    poetry = pyproject["tool"]["poetry"]
    relevant = {
        "project": {key: pyproject["project"][key] for key in _PROJECT_KEYS if key in pyproject["project"]},
        "dependency-groups": pyproject["dependency-groups"],
        "tool": {"poetry": {key: poetry[key] for key in _POETRY_KEYS if key in poetry}},
    }
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def _pins(file: str) -> list[re.Match[str]]:
    """What the file pins; nothing where there is no such file."""
    path = ROOT / file
    return list(_PIN.finditer(path.read_text())) if path.is_file() else []
