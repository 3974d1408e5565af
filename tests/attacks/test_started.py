"""What only a server shows: framing, two processes on one database, the log of a whole process."""

import pytest
from sqlalchemy.engine import URL

from tests.attacks.report import table
from tests.attacks.started import service
from tests.attacks.suite import run
from tests.conftest import backend


@pytest.mark.parametrize("names", [["races", "canaries", "smuggling"]])
async def test_nothing_is_accepted(template: URL, names: list[str]) -> None:
    async with service(2 if backend.environment()["REDIS_URL"] else 1, full=False) as target:
        reports = await run(target, names)

    assert not any(report.failed for report in reports), "\n" + table(reports)
    assert all(report.held >= 10 for report in reports)
