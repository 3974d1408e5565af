"""What the tests that kill processes share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from tests.faults.load import table
from tests.faults.service import Service, tally
from tests.processes import served_settings


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was done to the processes, what clients saw of it and what was lost."""
    if tally:
        counted = ", ".join(f"{number} {what}" for what, number in tally.items())
        terminalreporter.write_line(f"faults: {counted}")
    for line in table():
        terminalreporter.write_line(line)


@pytest.fixture
def service(template: URL, tmp_path: Path) -> Iterator[Service]:
    """A service of this test's own; nothing of it runs yet."""
    with served_settings() as stores:
        made = Service(tmp_path, stores)
        try:
            yield made
        finally:
            made.engine.dispose()
