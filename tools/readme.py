"""The commands that the README shows, as the README shows them."""

import re
from pathlib import Path

_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)

BASE_URL = "http://127.0.0.1:8000"
"""Where the README's commands expect the service."""


def bash_blocks(page: Path) -> list[str]:
    """The blocks of `page` marked `bash`, in order. What is only shown is marked otherwise."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))
