"""The dashboard and the alert rules that are shipped: they name metrics and labels that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.telemetry.metric_definitions import SECTIONS
from gateway.telemetry.metric_kinds import MetricKind

CONFIG = Path(__file__).parents[1] / "config"
RULES = yaml.safe_load((CONFIG / "prometheus" / "rules.yaml").read_text())
DASHBOARD = json.loads((CONFIG / "grafana" / "llm-gateway.json").read_text())
LABELS = {
    definition.name + suffix: {*definition.labels, "instance", "job", *(["le"] if suffix else [])}
    for _, definitions in SECTIONS
    for definition in definitions
    for suffix in (
        ("_bucket", "_sum", "_count") if definition.kind is MetricKind.HISTOGRAM else ("",)
    )
}
ALL_RULES = [rule for group in RULES["groups"] for rule in group["rules"]]
RECORDED = {rule["record"] for rule in ALL_RULES if "record" in rule}
PROMTOOL = shutil.which("promtool")


def dashboard_queries(node: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON
    """Every expression of a panel, and those of the variables."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "definition") and isinstance(value, str):
                yield value
            else:
                yield from dashboard_queries(value)
    elif isinstance(node, list):
        for item in node:
            yield from dashboard_queries(item)


QUERIES = [
    *(rule["expr"] for rule in ALL_RULES),
    *(
        text
        for rule in ALL_RULES
        for text in rule.get("annotations", {}).values()
        if "query" in text
    ),
    *dashboard_queries(DASHBOARD),
]


def test_there_are_queries() -> None:
    assert len(QUERIES) > 40


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_names_metrics_that_exist(query: str) -> None:
    names = re.findall(r"llm_gateway[a-z0-9_:]+", query)
    assert names
    assert set(names) <= LABELS.keys() | RECORDED


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_uses_labels_that_its_metrics_have(query: str) -> None:
    names = [name for name in re.findall(r"llm_gateway_[a-z0-9_]+", query) if name in LABELS]
    known = set.union({"pool", "service"}, *(LABELS[name] for name in names))
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", query)
    used = {label.strip() for labels in grouped for label in labels.split(",")}
    used |= set(re.findall(r"[{,]\s*(\w+)\s*=~?", query))
    assert used <= known


def test_every_alert_says_what_it_means_and_how_urgent_it_is() -> None:
    alerts = [rule for rule in ALL_RULES if "alert" in rule]
    assert len(alerts) > 10
    for alert in alerts:
        assert alert["labels"]["severity"] in ("page", "ticket"), alert["alert"]
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["description"]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian, Ubuntu: package prometheus)")
@pytest.mark.parametrize(
    "command", [["check", "rules", "rules.yaml"], ["test", "rules", "rules-test.yaml"]]
)
def test_promtool_finds_the_rules_right(command: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *command],
        cwd=CONFIG / "prometheus",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
