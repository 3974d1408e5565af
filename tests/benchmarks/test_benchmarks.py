"""The benchmark measures what it says, and memory is bounded."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from app.core.configs import PROJECT_ROOT
from tests.conftest import backend


def printed(*command: str) -> Any:
    """What a program of the benchmark prints as JSON; how far it is goes to the standard error."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not backend.environment()["REDIS_URL"], reason="it measures on PostgreSQL and Redis")
def test_every_row_is_measured_on_both_servers() -> None:
    found = printed("benchmarks", "--rounds", "2", "--seconds", "0.2", "--keys", "0", "--starts", "0", "--json")
    assert [row["name"] for row in found["rows"]] == [
        *("profile", "list of 20 with total", "page of 20 by cursor", "login", "health")
    ]
    for row in found["rows"]:
        assert row["ratios"][0] <= row["ratio"] <= row["ratios"][-1]
        assert row["service_cpu_us"] > 0
        assert row["baseline_cpu_us"] > 0
    assert (found["memory"], found["modules"]) == (None, None)


@pytest.mark.skipif(not backend.environment()["REDIS_URL"], reason="it measures on PostgreSQL and Redis")
def test_what_is_off_by_default_is_measured_on_and_off() -> None:
    pytest.importorskip("prometheus_client", reason="the extra `metrics` is not installed")
    found = printed("benchmarks", "switches", "--rounds", "1", "--seconds", "0.1", "--json")
    assert [row["name"] for row in found] == ["metrics", "metrics, several processes"]
    assert all(row["service_cpu_us"] > 0 < row["baseline_cpu_us"] for row in found)


def test_every_row_of_the_jobs_is_measured() -> None:
    database = "postgresql" if backend.environment()["REDIS_URL"] else "sqlite"
    found = printed("benchmarks", "jobs", "--quick", "--json", "--on", database)
    (rows,) = found.values()
    assert list(found) == [database]
    for name in ("dispatch", "claim", "outcome"):
        assert rows[name]["ratio"] == pytest.approx(rows[name]["with_us"] / rows[name]["without_us"])
        assert rows[name]["without_us"] > 0
    assert 0 < rows["latency"]["p50_ms"] <= rows["latency"]["p99_ms"]
    rate = rows["throughput"]
    assert 0 < rate["lowest"] <= rate["ratio"] <= rate["highest"]
    assert min(rate["jobs_per_second"], rate["light_per_second"]) > 0
    processes = {"app", "worker"} if database == "postgresql" else {"app"}
    assert rows["memory"].keys() == {"jobs", *processes}
    for process in processes:
        assert rows["memory"][process]["first_mib"] > 0


@pytest.mark.once
@pytest.mark.parametrize("name", ["TEST_DATABASE_URL", "TEST_REDIS_URL"])
def test_without_servers_it_says_what_is_missing(name: str) -> None:
    given = {"TEST_DATABASE_URL": "postgresql://nowhere/x", "TEST_REDIS_URL": "redis://nowhere"}
    env = {**os.environ, **given}
    del env[name]
    command = [sys.executable, "-m", "benchmarks"]
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{name} is not set")


@pytest.mark.once
def test_memory_does_not_grow_with_the_number_of_keys() -> None:
    found = printed("benchmarks.memory", "200000")
    assert found["limiter"]["kept"] <= 20_000
    for name in ("limiter", "cache"):
        # at a tenth both are full, or nearly so; what grew with the keys would be ten times that at the end
        assert found[name]["mib_after_all"] < 2 * found[name]["mib_after_tenth"] + 8


@pytest.mark.once
def test_a_start_with_thirty_modules_is_compared_with_one_of_two() -> None:
    found = printed("benchmarks.modules", "1")
    assert found["modules"] == [2, 30]
    assert found["own_code_ms"][1] > found["own_code_ms"][0] > 0
    assert found["ratio"] > 0
