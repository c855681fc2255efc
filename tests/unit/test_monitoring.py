"""Dashboard, alerts and recording rules of config/: every expression names metrics and labels that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.unit.test_docs import metric_names, metrics_table

CONFIG = Path(__file__).parent.parent.parent / "config"
DASHBOARD = CONFIG / "grafana" / "registry-mirror.json"
RULES = [CONFIG / "prometheus" / name for name in ("alerts.yml", "recording.yml")]

METRIC = re.compile(r"registry_mirror_[a-z0-9_]+|instance:registry_mirror_[a-z0-9_:]+")
SELECTOR = re.compile(r"(registry_mirror_[a-z0-9_]+)\{([^}]*)\}")
LABEL = re.compile(r"([a-z_]+)\s*(?:=~|!=|!~|=)")

# Labels that Prometheus adds, and those of a histogram.
ADDED = {"instance", "job", "le"}


def rules(file: Path) -> list[dict[str, Any]]:
    document = YAML(typ="safe").load(file.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def recorded() -> set[str]:
    """Return the names that recording rules make."""
    return {rule["record"] for rule in rules(RULES[1])}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return [each for each in found if each["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Yield each expression, with where it stands."""
    for file in RULES:
        for rule in rules(file):
            yield f"{file.name} {rule.get('alert') or rule['record']}", rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"{DASHBOARD.name} {panel['title']}", target["expr"]


EXPRESSIONS = list(expressions())


def plain(name: str) -> str:
    """Return the name of a histogram without what its series add."""
    return re.sub("_(bucket|count|sum)$", "", name)


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS, ids=[each for each, _ in EXPRESSIONS])
def test_monitoring_names_metrics_and_labels_that_exist(where: str, expression: str) -> None:
    names = set(METRIC.findall(expression))
    assert names, where
    unknown = {each for each in names if plain(each) not in metric_names()} - recorded()
    assert not unknown, where
    labels = {name: set(each) for name, each in metrics_table().items()}
    for name, selector in SELECTOR.findall(expression):
        assert set(LABEL.findall(selector)) <= labels[plain(name)] | ADDED, where


def test_monitoring_annotations_use_labels_of_their_expression() -> None:
    """A label in a text that the expression does not have would be an empty word in an alert."""
    labels = {name: set(each) for name, each in metrics_table().items()}
    for rule in rules(RULES[0]):
        used = set(re.findall(r"\$labels\.([a-z_]+)", " ".join(rule["annotations"].values())))
        has = set.union(*(labels[plain(name)] for name in METRIC.findall(rule["expr"])))
        assert used <= has | ADDED, rule["alert"]


def test_monitoring_alerts_have_a_severity_and_say_what_to_do() -> None:
    for rule in rules(RULES[0]):
        assert rule["labels"]["severity"] in ("info", "warning", "critical"), rule["alert"]
        assert {"summary", "description"} <= rule["annotations"].keys(), rule["alert"]


def test_monitoring_alerts_are_those_of_the_documents() -> None:
    """Hold the alerts against the table of docs/operations.md."""
    document = (CONFIG.parent / "docs" / "operations.md").read_text()
    table = document.partition("## What to alert on")[2].partition("\n## ")[0]
    advised = set(METRIC.findall(table))
    alerts = {name for rule in rules(RULES[0]) for name in METRIC.findall(rule["expr"])}
    assert advised
    assert advised - alerts <= {"registry_mirror_client_bytes_total", "registry_mirror_upstream_bytes_total"}


def test_dashboard_panels_explain_themselves() -> None:
    """Every panel has a description, a unit, a place of its own, and the data source that is chosen."""
    document = json.loads(DASHBOARD.read_text())
    idents = [each["id"] for each in document["panels"]]
    assert len(idents) == len(set(idents))
    cells = set()
    for panel in panels():
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in cells, panel["title"]
                cells.add((x, y))
        assert place["x"] + place["w"] <= 24, panel["title"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing (Debian: prometheus)")
@pytest.mark.parametrize("file", [*RULES, DASHBOARD], ids=lambda file: file.name)
def test_monitoring_expressions_are_valid_for_promtool(file: Path, tmp_path: Path) -> None:
    """The dashboard's are checked as rules, with values in place of its variables."""
    if file == DASHBOARD:
        asked = [target["expr"] for panel in panels() for target in panel["targets"]]
        texts = [each.replace("$__rate_interval", "5m").replace("$instance", ".*") for each in asked]
        made = [{"record": f"test:panel:{number}", "expr": text} for number, text in enumerate(texts)]
        file = tmp_path / "dashboard.json"
        file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": made}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
