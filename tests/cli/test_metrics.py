"""Metrics of whole processes: several that share one scrape, a worker, and a port that is taken."""

import os
import signal
import urllib.request
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from app.cli.run import listen
from tests.cli.test_run import KIT, refused, service
from tests.core.services.test_metrics import Samples, samples
from tests.processes import environment, free_port, kit, served_settings, started, wait_for

pytestmark = pytest.mark.once


def scraped(port: int) -> Samples:
    """What a scrape of that port has."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return samples(answer.read().decode())


def answered(port: int) -> bool:
    """Whether the port is scraped."""
    try:
        return bool(scraped(port))
    except OSError:
        return False


def test_processes_share_one_scrape_and_lose_no_count_with_one_of_them(tmp_path: Path) -> None:
    own = free_port()
    shared = tmp_path / "shared"
    shared.mkdir()
    settings = {"METRICS_ENABLED": "true", "METRICS_PORT": str(own), "TMPDIR": str(shared)}
    with service(tmp_path, WEB_CONCURRENCY="2", **settings) as (process, port, _):
        wait_for(lambda: scraped(own).get("kit_processes") == 2)

        def count() -> float:
            return scraped(own)['kit_http_requests_total{method="GET",route="/health/live",status="2xx"}']

        for _ in range(40):  # each a connection of its own
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live"):
                pass
        assert count() == 40
        (folder,) = shared.glob("kit-metrics-*")
        pids = {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_*.db")}
        os.kill(victim := max(pids), signal.SIGKILL)
        wait_for(
            lambda: (
                {path.name for path in folder.glob(f"*_{victim}.db")}
                == {f"{kind}_{victim}.db" for kind in ("counter", "histogram")}
            )
        )
        wait_for(lambda: scraped(own)["kit_processes"] == 2)
        assert count() == 40
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0
    assert not list(shared.glob("kit-metrics-*"))


def test_a_worker_is_scraped_on_its_port(tmp_path: Path, template: URL) -> None:
    own = free_port()
    with served_settings() as stores:
        env = environment(tmp_path, METRICS_ENABLED="true", METRICS_PORT=str(own), **stores)
        with started(*KIT, "worker", env=env, log=tmp_path / "out.log"):
            wait_for(lambda: answered(own))
            found = scraped(own)
            assert found["kit_queues_readable"] == found["kit_processes"] == 1
            assert found['kit_job_runs_total{outcome="dead",task="core.mail.send"}'] == 0


@pytest.mark.parametrize("command", ["run", "worker"])
def test_a_port_in_use_stops_the_start_with_the_name_of_the_setting(tmp_path: Path, command: str) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        settings = {"METRICS_ENABLED": "true", "METRICS_PORT": str(port)}
        line = refused(kit(command, PORT=str(free_port()), VAR_DIR=str(tmp_path), **settings))
    assert line.startswith(f"Port {port} on 127.0.0.1 is in use.")
    assert f"METRICS_PORT={port % 65535 + 1}" in line
