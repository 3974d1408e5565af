"""From one name to all its forms, and which names cannot be used."""

import builtins
import importlib.util
import keyword
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from tools.generators.changes import GeneratorError

MAX_LENGTH = 30
"""Characters of a module's or a model's name; PostgreSQL takes 63 for both with a column behind them."""

SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*")
_WORD_BEGINS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class Names:
    """A model's name in every form that the templates need."""

    cls: str
    one: str
    many: str
    alias: str  # PurchaseOrders
    words: str  # purchase order
    words_many: str
    article: str


def model_names(name: str, plural: str | None = None) -> Names:
    """The forms of a model's name; GeneratorError where it cannot be one."""
    if not _PASCAL.fullmatch(name):
        proper = pascal(snake(name))
        raise GeneratorError(f"{name!r} is no name of a model" + (f": write {proper}" if proper else ""))
    if keyword.iskeyword(name) or hasattr(builtins, name):
        raise GeneratorError(f"{name} is a name of Python: choose another for the model")
    one = snake(name)
    if keyword.iskeyword(one):
        raise GeneratorError(f"{one} is a keyword of Python: choose another name for the model")
    many = plural or plural_of(one)
    if not SNAKE.fullmatch(many) or keyword.iskeyword(many):
        raise GeneratorError(f"{many!r} is no plural: give one with --plural, as --plural purchase_orders")
    _check_length(many, "model")
    words, words_many = one.replace("_", " "), many.replace("_", " ")
    return Names(name, one, many, pascal(many), words, words_many, "an" if one[0] in "aeiou" else "a")


def check_module_name(name: str, others: Iterable[str]) -> None:
    """GeneratorError where no module can be called `name`, or its tables would be taken for those of another."""
    if not SNAKE.fullmatch(name):
        proper = snake(name)
        raise GeneratorError(f"{name!r} is no name of a module" + (f": write {proper}" if proper else ""))
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise GeneratorError(f"{name} is a keyword of Python: choose another name")
    _check_length(name, "module")
    if name in sys.stdlib_module_names:
        raise GeneratorError(f"{name} is a module of Python's standard library: choose another name")
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin is not None:  # more than a plain folder
        raise GeneratorError(f"{name} is a package that is installed here: choose another name")
    for other in sorted({*others} - {name}):
        shorter, longer = sorted((name, other), key=len)
        if longer.startswith(f"{shorter}_"):
            raise GeneratorError(
                f"the tables {longer}_* would be taken for those of {shorter}, as they begin with {shorter}_: "
                "choose another name"
            )


def snake(name: str) -> str:
    """The name in snake_case as far as it can be told, or nothing."""
    words = re.findall(r"[a-z0-9]+", _WORD_BEGINS.sub("_", name).lower()) if name.isascii() else []
    return "_".join(words).lstrip("_0123456789")


def pascal(name: str) -> str:
    """A snake_case name in PascalCase."""
    return "".join(word[0].upper() + word[1:] for word in name.split("_") if word)


def plural_of(name: str) -> str:
    """The usual English plural; `--plural` is for the others."""
    if re.search(r"[^aeiou]y$", name):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("s", "x", "z", "ch", "sh")) else f"{name}s"


def _check_length(name: str, kind: str) -> None:
    if len(name) > MAX_LENGTH:
        raise GeneratorError(f"{name} has {len(name)} characters: a {kind}'s name may have {MAX_LENGTH}")
