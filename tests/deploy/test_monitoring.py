"""Dashboard and alert rules use what a server exports and nothing else; alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from conf.serving import MetricsConfig
from shelfwise_client import Client, Event, RecommendQuery
from tests.deploy.manifests import DEPLOY
from tests.programs import deploy_program
from tests.serving.conftest import Servers, servers
from tests.serving.observability.test_metrics import free_port, scrape

__all__ = ["servers"]  # a fixture

ALERT_TESTS = Path(__file__).parent / "alerts.test.yaml"
METRIC = re.compile(r"\b(?:shelfwise|process)_[a-z_]+\b")


@pytest.fixture
def exported(servers: Servers) -> dict[str, set[str]]:
    """Return the label names of every metric that a server exports once it has answered some calls."""
    port = free_port()
    experiments = servers.store / "experiments.yaml"
    experiments.write_text("ranking: {arms: {all: {share: 1}}}")
    server = servers.start(metrics=MetricsConfig(port=port), experiments=str(experiments))
    with Client(server.address) as client:
        client.record_events([Event("u", "i1", "click")])
        client.recommend(RecommendQuery(user_id="u", filter="in_stock"))
    metrics = server.running.metrics
    # What must not happen for a test to be possible.
    metrics.shed.labels("queue_wait")
    metrics.refused.labels("KEY_MISSING")
    metrics.arm_fallbacks.labels("ranking", "all")
    metrics.state_errors.labels("Recommend")
    labels: dict[str, set[str]] = {}
    for name, pairs in scrape(port):
        labels.setdefault(name, set()).update(label for label, _ in pairs)
    return labels


def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((DEPLOY / "grafana" / "shelfwise.json").read_text())
    return content


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]
    variables = [v["definition"] for v in dashboard()["templating"]["list"] if v["type"] == "query"]
    return [*asked, *variables, *(rule["expr"] for rule in rules())]


def test_every_metric_and_label_is_exported(exported: dict[str, set[str]]) -> None:
    assert len(expressions()) > 40
    for expression in expressions():
        names = METRIC.findall(expression)
        assert names, expression
        assert [name for name in names if name not in exported] == [], expression
        known = set.union(*(exported[name] for name in names)) | {"job", "instance"}
        used = {label for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(", ")}
        used |= set(re.findall(r'(\w+)(?:=~|!=|=)"', expression))
        assert used <= known, expression


def test_every_metric_of_the_server_is_on_the_dashboard(exported: dict[str, set[str]]) -> None:
    shown = {name for expression in expressions() for name in METRIC.findall(expression)}
    own = {name for name in exported if name.startswith("shelfwise_") and not name.endswith("_created")}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert {name for name in own if re.sub(r"_(bucket|sum|count)$", "", name) not in families} == set()


def test_panels_do_not_overlap_and_rules_say_what_to_do() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def promtool(*arguments: str, feed: str | None = None) -> subprocess.CompletedProcess[str]:
    program = deploy_program("promtool", "apt-get install prometheus")
    return subprocess.run(
        [program, *arguments], input=feed, capture_output=True, text=True, timeout=60, check=False
    )


def test_alerts_fire_when_they_should_and_only_then() -> None:
    done = promtool("test", "rules", str(ALERT_TESTS))
    assert done.returncode == 0, done.stdout + done.stderr
    tested = {
        test["alertname"]
        for group in yaml.safe_load(ALERT_TESTS.read_text())["tests"]
        for test in group["alert_rule_test"]
        if test["exp_alerts"]
    }
    assert tested == {rule["alert"] for rule in rules()}


def test_prometheus_reads_the_rules_and_its_configuration(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "compose" / "prometheus.yaml", tmp_path)
    shutil.copytree(DEPLOY / "prometheus", tmp_path / "rules")
    done = promtool("check", "config", str(tmp_path / "prometheus.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_what_a_server_exports_is_by_the_rules_of_prometheus(servers: Servers) -> None:
    port = free_port()
    server = servers.start(metrics=MetricsConfig(port=port))
    with Client(server.address) as client:
        client.record_events([Event("u", "i1", "click")])
        client.recommend(RecommendQuery(user_id="u", filter="in_stock"))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    done = promtool("check", "metrics", feed=text)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
