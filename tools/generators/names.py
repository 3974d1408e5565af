"""From one name to all its forms, and which names cannot be used."""

import builtins
import importlib.util
import keyword
import re
import sys
from dataclasses import dataclass

from tools.generators.errors import GeneratorError

MAX_LENGTH = 30
"""Of a module's and a model's name; PostgreSQL takes 63 characters for both with a column behind them."""

_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*")
_WORD_BEGINS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_ES = re.compile(r"(s|x|z|ch|sh)$")
_IES = re.compile(r"(?<=[^aeiou])y$")


@dataclass(frozen=True)
class Names:
    """A model's name in every form the templates need."""

    cls: str
    one: str
    many: str

    @property
    def alias(self) -> str:
        """`PurchaseOrders`"""
        return pascal(self.many)

    @property
    def words(self) -> str:
        """`purchase order`"""
        return self.one.replace("_", " ")

    @property
    def words_many(self) -> str:
        """`purchase orders`"""
        return self.many.replace("_", " ")

    @property
    def article(self) -> str:
        """`a` or `an`"""
        return "an" if self.one[0] in "aeiou" else "a"


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
    if not _SNAKE.fullmatch(many) or keyword.iskeyword(many):
        raise GeneratorError(f"{many!r} is no plural: give one with --plural, as --plural purchase_orders")
    _check_length(many, "model")
    return Names(name, one, many)


def check_module_name(name: str) -> None:
    """GeneratorError where no module can be called `name`, whatever modules there are."""
    if not _SNAKE.fullmatch(name):
        proper = snake(name)
        raise GeneratorError(f"{name!r} is no name of a module" + (f": write {proper}" if proper else ""))
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise GeneratorError(f"{name} is a keyword of Python: choose another name")
    _check_length(name, "module")
    if name in sys.stdlib_module_names:
        raise GeneratorError(f"{name} is a module of Python's standard library: choose another name")
    if _is_package(name):
        raise GeneratorError(f"{name} is a package that is installed here: choose another name")


def snake(name: str) -> str:
    """The name in snake_case as far as it can be told, or nothing."""
    words = re.findall(r"[a-z0-9]+", _WORD_BEGINS.sub("_", name).lower()) if name.isascii() else []
    return "_".join(words).lstrip("_0123456789")


def pascal(name: str) -> str:
    """A snake_case name in PascalCase."""
    return "".join(word[0].upper() + word[1:] for word in name.split("_") if word)


def plural_of(name: str) -> str:
    """The usual English plural; `--plural` is for the others."""
    if _IES.search(name):
        return _IES.sub("ies", name)
    return f"{name}es" if _ES.search(name) else f"{name}s"


def table_clash(name: str, others: list[str]) -> str | None:
    """The module whose tables would begin like those of `name`, or the other way round."""
    return next(
        (other for other in others if f"{name}_".startswith(f"{other}_") or f"{other}_".startswith(f"{name}_")), None
    )


def _check_length(name: str, kind: str) -> None:
    if len(name) > MAX_LENGTH:
        raise GeneratorError(f"{name} has {len(name)} characters: a {kind}'s name may have {MAX_LENGTH}")


def _is_package(name: str) -> bool:
    """Whether `import name` finds more than a plain folder."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None
