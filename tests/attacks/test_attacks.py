"""Every attack on the service in this process."""

import pytest

from tests.attacks.report import table
from tests.attacks.suite import ATTACKS, run
from tests.attacks.target import Target

FEWEST = {
    "tokens": 300,
}
"""How many cases an attack has at least: none must come to nothing unnoticed."""


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "smuggling"])
async def test_nothing_is_accepted(target: Target, name: str) -> None:
    (report,) = await run(target, [name])

    assert not report.failed, "\n" + table([report])
    if not report.held:
        pytest.skip(report.unjudged[0])  # what this service does not have
    assert report.held >= FEWEST.get(name, 10)
