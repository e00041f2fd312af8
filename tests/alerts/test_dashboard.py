"""The Grafana dashboard: its shape, and each of its queries on a real VictoriaMetrics."""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from belatwist.collectors.registry import CATALOGUE, SOURCES
from belatwist.model import Series
from tests.alerts.simulated_devices import PACE, samples, send
from tests.process import TIMEOUT
from tests.victoria.server import VictoriaMetrics

pytestmark = pytest.mark.victoria

FOLDER = Path(__file__).parent.parent.parent / "docs" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "belatwist.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
CHARTS = [panel for panel in PANELS if panel["type"] != "row"]
TARGETS: dict[str, dict[str, Any]] = {
    f"{panel['title']}-{target['refId']}": target for panel in CHARTS for target in panel["targets"]
}
LINES = {name: target for name, target in TARGETS.items() if target["range"]}
each_line = pytest.mark.parametrize("target", LINES.values(), ids=LINES.keys())
each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
VARIABLES: dict[str, dict[str, Any]] = {
    variable["name"]: variable for variable in DASHBOARD["templating"]["list"]
}
ANNOTATIONS: list[dict[str, Any]] = DASHBOARD["annotations"]["list"]
EXPRESSIONS = [target["expr"] for target in TARGETS.values()]

DEVICES = ("box-1", "box-2")
END = 3 * 3600
START_MS = 1_767_225_600_000

RANGES = {"3h": (3 * 3600, 10), "7d": (7 * 86400, 600)}
"""Seconds of the range, and the interval that Grafana makes of it in a panel of some 1,000 points:
their quotient, rounded to a pleasant number."""

SECONDS = {"10s": 10, "30s": 30, "1m": 60, "2m": 120}
"""The smallest steps that queries ask for."""

OFF = {
    metric.prometheus_name
    for source in SOURCES.values()
    if not source.default
    for metric in source.metrics
}
"""Metrics of sources that are off by default: no dashboard has to show them."""


def named(expression: str) -> set[str]:
    """Return the catalogue's metrics that a query names."""
    words = set(re.findall(r"\w+", expression))
    return {
        entry.prometheus_name
        for entry in CATALOGUE.values()
        if words & {entry.prometheus_name + suffix for suffix in ("", "_bucket", "_sum", "_count")}
    }


def put_in(expression: str, device: str, *, interval: int = 10, least: int = 0) -> str:
    """Replace variables and macros by their values.

    As Grafana does (its source: ``pkg/promlib/models/query.go``, ``interpolateVariables`` and
    ``calculateRateInterval``).

    :param device: a regular expression: the value chosen, or the variable's ``allValue``.
    :param interval: of the panel, in seconds.
    :param least: the query's min step, in seconds.
    """
    values = {
        "$device_id": device,
        "$__interval": f"{max(interval, least)}s",
        "$__rate_interval": f"{max(interval + least, 4 * least)}s",
    }
    result = re.sub(r"\$\w+", lambda found: values[found.group()], expression)
    assert "$" not in result
    return result


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    """Fill a server with three hours of two devices, and an alert of each."""
    with VictoriaMetrics(tmp_path_factory.mktemp("grafana")) as server:
        for device in DEVICES:
            send(server, START_MS, samples(device, {}, lambda every: range(0, END + 1, every)))
            labels = {"alertname": "DeviceHot", "alertstate": "firing"}
            alert = Series.of("ALERTS", device, {**labels, "alertgroup": "belatwist-device"})
            send(server, START_MS, [(alert, END, 1.0)])
        yield server


def ask(server: VictoriaMetrics, path: str, **arguments: object) -> list[dict[str, Any]]:
    """Send a query as Grafana's data source does, by POST."""
    body = urllib.parse.urlencode(arguments).encode()
    with urllib.request.urlopen(server.url + path, body, timeout=TIMEOUT) as answer:
        document = json.load(answer)
    assert document["status"] == "success"
    result = document["data"]["result"]
    assert isinstance(result, list)
    return result


def run(
    server: VictoriaMetrics, target: dict[str, Any], span: str, device: str
) -> list[dict[str, Any]]:
    """Run a query for a range, and return the series that have points."""
    to = START_MS // 1000 + END
    if target.get("instant"):
        return ask(server, "/api/v1/query", query=put_in(target["expr"], device), time=to)
    seconds, interval = RANGES[span]
    least = SECONDS[target["interval"]]
    step = max(interval, least)
    result = ask(
        server,
        "/api/v1/query_range",
        query=put_in(target["expr"], device, interval=interval, least=least),
        start=(to - seconds) // step * step,
        end=to // step * step,
        step=step,
    )
    for series in result:
        assert all(value not in ("NaN", "+Inf", "-Inf") for _, value in series["values"])
    return result


@pytest.mark.process
@pytest.mark.parametrize("span", RANGES)
@each_target
def test_a_query_returns_data_of_every_device(
    server: VictoriaMetrics, target: dict[str, Any], span: str
) -> None:
    """With «All» chosen there is data of both devices, whether the range is short or long."""
    result = run(server, target, span, VARIABLES["device_id"]["allValue"])
    assert {series["metric"]["device_id"] for series in result} == set(DEVICES)


@pytest.mark.process
@each_target
def test_a_query_keeps_to_the_device_that_was_chosen(
    server: VictoriaMetrics, target: dict[str, Any]
) -> None:
    """Only the table of the fleet, from which one chooses, has them all."""
    result = run(server, target, "3h", DEVICES[0])
    found = {series["metric"]["device_id"] for series in result}
    assert found == (set(DEVICES) if target.get("instant") else {DEVICES[0]})


@pytest.mark.process
@each_line
def test_a_line_has_no_holes(server: VictoriaMetrics, target: dict[str, Any]) -> None:
    """Where samples come without a gap there is a point at every step, once there are some."""
    for series in run(server, target, "3h", ".+"):
        times = [at for at, _ in series["values"]]
        step = max(10, SECONDS[target["interval"]])
        assert len(times) >= END // step * 0.9
        assert len(times) == (times[-1] - times[0]) // step + 1


@pytest.mark.process
@each_line
def test_a_legend_has_the_labels_that_tell_lines_apart(
    server: VictoriaMetrics, target: dict[str, Any]
) -> None:
    """No two lines of a query have the same name, and no name has a label that is missing."""
    result = run(server, target, "3h", ".+")
    labels = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
    names = [tuple(series["metric"].get(label) for label in labels) for series in result]
    assert len(set(names)) == len(names)
    assert all(all(name) for name in names)


@pytest.mark.process
def test_the_variable_lists_the_devices(server: VictoriaMetrics) -> None:
    """What Grafana asks for ``label_values(metric, label)`` gives both devices."""
    variable = VARIABLES["device_id"]
    found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
    assert found
    metric, label = found.groups()
    assert variable["definition"] == variable["query"]["query"]
    span = {"start": str(START_MS // 1000), "end": str(START_MS // 1000 + END)}
    answer = server.get(f"/api/v1/label/{label}/values", **{"match[]": metric, **span})
    assert json.loads(answer)["data"] == list(DEVICES)
    assert variable["includeAll"]
    assert variable["multi"]


@pytest.mark.process
@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=lambda annotation: annotation["name"])
def test_annotations_return_data(server: VictoriaMetrics, annotation: dict[str, Any]) -> None:
    """The alerts that vmalert has written back are found."""
    result = run(server, annotation["target"], "3h", ".+")
    assert {series["metric"]["device_id"] for series in result} == set(DEVICES)


def test_every_metric_is_shown_and_none_invented() -> None:
    """The queries name every metric of the sources that are on by default, and no other."""
    text = "\n".join(EXPRESSIONS)
    assert named(text) == {entry.prometheus_name for entry in CATALOGUE.values()} - OFF
    prefixes = {entry.prometheus_name.partition("_")[0] for entry in CATALOGUE.values()}
    words = set(re.findall(rf"\b(?:{'|'.join(prefixes)})_\w+", text)) - {"device_id"}
    known = {
        entry.prometheus_name + suffix
        for entry in CATALOGUE.values()
        for suffix in ("", "_bucket", "_sum", "_count")
    }
    assert words <= known


@each_target
def test_a_window_holds_several_samples(target: dict[str, Any]) -> None:
    """A range query asks for no finer step than its slowest samples have by default.

    Without a min step of its own, Grafana would take the data source's, and ``$__rate_interval``
    would be shorter than the distance of two samples.
    """
    slowest = max(PACE[name] for name in named(target["expr"]))
    windows = re.findall(r"\[(.+?)\]", target["expr"])
    assert windows
    if target.get("instant"):
        assert "$" not in target["expr"]
    elif windows not in (["1d"], ["2h"]):  # The slowest comes once an hour.
        assert SECONDS[target["interval"]] >= slowest
        assert set(windows) <= {"$__rate_interval", "$__interval"}


@pytest.mark.parametrize("panel", CHARTS, ids=lambda panel: panel["title"])
def test_a_panel_is_complete(panel: dict[str, Any]) -> None:
    """It says what it shows, in which unit, and what is good; colours suit dark and light."""
    assert len(panel["description"]) > 20
    assert panel["type"] in ("timeseries", "table")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    steps = [defaults["thresholds"]["steps"]] + [
        entry["value"]["steps"]
        for override in panel["fieldConfig"]["overrides"]
        for entry in override["properties"]
        if entry["id"] == "thresholds"
    ]
    for one in steps:
        assert one[0]["value"] is None
        assert [step["value"] for step in one[1:]] == sorted(step["value"] for step in one[1:])
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs)
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert target["range"] is not target["instant"]


def test_the_table_names_its_columns() -> None:
    """Each query of the fleet's table becomes a column with a title and a unit of its own."""
    (table,) = [panel for panel in CHARTS if panel["type"] == "table"]
    *_, organize = table["transformations"]
    renamed = organize["options"]["renameByName"]
    refs = {f"Value #{target['refId']}" for target in table["targets"]}
    assert renamed.keys() == refs | {"device_id"}
    styled = [override["matcher"]["options"] for override in table["fieldConfig"]["overrides"]]
    assert sorted(styled) == sorted(renamed.values())
    assert f"/d/{DASHBOARD['uid']}?" in json.dumps(table)


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """Its uid is stable, and nothing in it belongs to one Grafana, one device or one theme."""
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"] == "belatwist"
    assert VARIABLES["datasource"]["query"] == "prometheus"
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    text = json.dumps(DASHBOARD)
    assert not re.search(r'"#[0-9a-fA-F]{3,8}"|rgba?\(|belabox-\d|orangepi', text)
    assert not any("iteration" in key or key == "__inputs" for key in DASHBOARD)


def test_no_panel_covers_another() -> None:
    """They fit the grid of 24 columns and do not overlap."""
    places = [panel["gridPos"] for panel in PANELS]
    for place in places:
        assert place["x"] + place["w"] <= 24
    for a, b in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below


def test_provisioning_fits_the_dashboard() -> None:
    """There is one data source, of the kind that the dashboard asks for, which lets late samples
    show; and one provider of dashboards from files.
    """
    folder = FOLDER / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "victoriametrics.yaml").read_text())
    (source,) = sources["datasources"]
    assert sources["apiVersion"] == 1
    assert source["type"] == VARIABLES["datasource"]["query"]
    assert source["jsonData"]["incrementalQuerying"] is False
    providers = yaml.safe_load((folder / "dashboards" / "belatwist.yaml").read_text())
    (provider,) = providers["providers"]
    assert providers["apiVersion"] == 1
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/")
