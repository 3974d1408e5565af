"""Names inside the cache: whose they are, which fit a pattern, how callers are told apart."""

import fnmatch
import re
from collections.abc import Callable
from functools import lru_cache

_ROOT = __name__.partition(".")[0]

OF_CALLER = "\x1f"
"""Between a key and the caller whose entry it is."""


def namespace_of(module: str) -> str:
    """Whose names a Python module uses: `auth` for `app.auth.services.login`, the package for any other."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == _ROOT and rest else first


def caller_tag(key: str) -> str:
    """The tag of what is stored for single callers under `key`."""
    return f"callers of {key}"


@lru_cache
def matcher(pattern: str) -> Callable[[str], object]:
    """Tells whether a key fits, whoever's entry it is."""
    glob = fnmatch.translate(pattern.replace("[", "[[]"))  # of the glob language, only * and ? are spoken here
    whole = re.compile(glob.removesuffix(r"\z").removesuffix(r"\Z") + f"(?s:{OF_CALLER}.*)?")
    return whole.fullmatch
