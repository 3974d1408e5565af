"""The alert rules and the dashboard under deploy/ use metrics, labels and values that the service has."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # it has no types
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.configs import PROJECT_ROOT, AppConfig
from app.core.metrics import declared
from app.core.runtime import exporting
from tests.core.api.conftest import make_app
from tests.utils import program

pytest.importorskip("prometheus_client", reason="the extra `metrics` is not installed")
pytestmark = pytest.mark.once

DEPLOY = PROJECT_ROOT / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())

SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
OF_PROMETHEUS = {"up": {"job", "instance"}}
TARGET = {"instance", "job", "process", "le"}
FUNCTIONS = {"sum", "max", "rate", "increase", "histogram_quantile", "topk", "absent"}
WORDS = {"by", "on", "or", "unless"}
TOKEN = re.compile(r'"[^"]*"|\[[^\]]+\]|[a-zA-Z_:][\w:]*|[0-9.]+|=~|!=|==|[-+*/()<>{},=]|\s+')


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression with the title of its alert or panel."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
            yield panel["title"], expr


class Expression:
    """An expression taken apart: the metrics with their matchers, and the labels it is grouped by."""

    def __init__(self, text: str) -> None:
        assert "".join(TOKEN.findall(text)) == text, text
        assert all(text.count(one) == text.count(other) for one, other in ("()", "{}", "[]"))
        grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", text)
        self.groups = {label.strip() for group in grouped for label in group.split(",")}
        bare = re.sub(r'\b(?:by|on) \([^)]*\)|\[[^\]]+\]|"[^"]*"', "", text)
        self.metrics: dict[str, dict[str, str]] = {}
        for name, matchers in re.findall(r"([a-z][a-z_]*)\b(?!\()(?:\{([^}]*)\})?", re.sub(r"\{[^}]*\}", "", bare)):
            if name not in WORDS | FUNCTIONS:
                self.metrics[name] = dict(re.findall(r'(\w+)[=!~]+"([^"]*)"', matchers))
        for name, matchers in re.findall(r"([a-z][a-z_]*)\{([^}]*)\}", text):
            self.metrics[name] |= dict(re.findall(r'(\w+)[=!~]+"([^"]*)"', matchers))
        self.calls = set(re.findall(r"([a-z_]+)\(", re.sub(r"\b(?:by|on) \(", "", text)))


@pytest.fixture
async def real(db: AsyncSession) -> dict[str, set[str]]:
    """Labels of every series that a scrape can have, by its name."""
    application = make_app(METRICS_ENABLED=True)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://test")
    async with exporting(AppConfig(METRICS_ENABLED=True)), client:
        text = (await client.get("/metrics")).text
    labels: dict[str, set[str]] = {metric.name: set(metric.labels) for metric in declared}
    for name, shown in re.findall(r"^(\w+)\{([^}]*)\}", text, re.MULTILINE):
        labels.setdefault(name, set(re.findall(r'(\w+)="', shown)))
    found = dict(OF_PROMETHEUS)
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
        for suffix in SUFFIXES[kind]:
            found[name + suffix] = labels.get(name.removesuffix("_total"), set()) | TARGET
    return found


async def test_every_expression_uses_what_there_is(real: dict[str, set[str]]) -> None:
    for title, text in expressions():
        expression = Expression(text)
        assert expression.calls <= FUNCTIONS, title
        assert expression.metrics, title
        labels: set[str] = set()
        for name, matchers in expression.metrics.items():
            assert name in real, f"{title}: there is no metric {name}"
            assert matchers.keys() <= real[name], f"{title}: {name} has no label {matchers.keys() - real[name]}"
            labels |= real[name]
        assert expression.groups <= labels, f"{title}: none of its metrics has {expression.groups - labels}"


def test_what_is_not_there_would_be_found() -> None:
    found = Expression('sum by (route) (rate(kit_gone_total{colour="red"}[5m])) / kit_processes > 0.5')
    assert found.metrics == {"kit_gone_total": {"colour": "red"}, "kit_processes": {}}
    assert found.groups == {"route"}
    with pytest.raises(AssertionError):
        Expression("sum(rate(kit_gone_total[5m])")


def test_the_alerts_that_are_promised_are_there() -> None:
    assert {rule["alert"] for rule in RULES} >= {
        *("KitNotScraped", "KitErrors", "KitSlow", "KitJobsWait", "KitJobsDead", "KitPoolExhausted")
    }
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]


def test_every_metric_of_the_core_is_on_the_dashboard() -> None:
    shown = json.dumps(DASHBOARD)
    missing = [metric.name for metric in declared if metric.name not in shown and not metric.name.startswith("shop_")]
    assert missing == []


@pytest.mark.needs("promtool")
def test_prometheus_accepts_every_expression(tmp_path: Path) -> None:
    rules: list[dict[str, Any]] = [{"record": f"e{n}", "expr": text} for n, (_, text) in enumerate(expressions())]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    command = [str(program("promtool")), "check", "rules", str(DEPLOY / "prometheus" / "rules.yml"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
