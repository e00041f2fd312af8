"""The alert rules, evaluated by the real vmalert over data in a real VictoriaMetrics."""

import json
import queue
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from belatwist.collectors.registry import CATALOGUE
from tests.alerts.cases import CASES, HOUR, OVER, TROUBLE, Case
from tests.alerts.simulated_devices import samples, send
from tests.health.scraping import program
from tests.process import TIMEOUT, free_port
from tests.victoria.server import VictoriaMetrics

pytestmark = pytest.mark.victoria

FILE = Path(__file__).parent.parent.parent / "docs" / "alerts" / "belatwist.yaml"
TEXT = FILE.read_text()
GROUPS: list[dict[str, Any]] = yaml.safe_load(TEXT)["groups"]
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in GROUPS for rule in group["rules"]
}

UPLOADED = {entry.prometheus_name for entry in CATALOGUE.values()}
METRIC = rf"\b(?:{'|'.join(sorted({name.partition('_')[0] for name in UPLOADED}))})_\w+"
"""Matches what may be the name of a metric."""

START_MS = 1_767_225_600_000
END = 11 * HOUR
REMEMBERED = 6 * HOUR + 900
"""The longest that an alert goes on when the trouble is over."""


def wanted(name: str) -> bool:
    """Say whether any rule asks for a metric."""
    return name in TEXT


def vmalert(server: VictoriaMetrics, rules: Path, *options: str) -> list[str]:
    """Return the command line of vmalert over a server."""
    return [
        program("vmalert", "victoria-metrics"),
        f"-rule={rules}",
        f"-datasource.url={server.url}",
        *options,
    ]


def rfc3339(seconds: float) -> str:
    """Spell out a time of the data."""
    return datetime.fromtimestamp(START_MS / 1000 + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(scope="module")
def fired(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Replay the rules over every case at once.

    :return: by device and alert, the series of the firing: labels, and seconds since the start.
    """
    with VictoriaMetrics(tmp_path_factory.mktemp("alerts")) as server:
        for case in CASES:
            send(server, START_MS, lived(case, END))
        command = vmalert(
            server,
            FILE,
            f"-remoteWrite.url={server.url}",
            f"-replay.timeFrom={rfc3339(0)}",
            f"-replay.timeTo={rfc3339(END)}",
            "-replay.rulesDelay=0s",
            "-replay.disableProgressBar",
            "-datasource.queryStep=1m",
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        server.flush()
        exported = server.get("/api/v1/export", **{"match[]": 'ALERTS{alertstate="firing"}'})
    found: dict[str, dict[str, list[dict[str, Any]]]] = {case.name: {} for case in CASES}
    for line in exported.splitlines():
        one = json.loads(line)
        labels = one["metric"]
        times = [(at - START_MS) / 1000 for at in sorted(one["timestamps"])]
        of_device = found[labels["device_id"]]
        of_device.setdefault(labels["alertname"], []).append({"labels": labels, "times": times})
    return found


def lived(case: Case, until: float) -> Iterator[Any]:
    """Give what a case's device has said until some second, no more than each minute."""

    def times(every: int) -> list[int]:
        return [t for t in range(0, int(until), max(every, 60)) if not case.gone(t)]

    return samples(case.name, case.changes, times, wanted)


@pytest.mark.process
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_raises_its_alerts_and_no_others(
    fired: dict[str, dict[str, list[dict[str, Any]]]], case: Case
) -> None:
    """What must fire does, in time, names what it is about, and ends; nothing else fires."""
    found = fired[case.name]
    assert found.keys() == case.fires.keys()
    for alert, minutes in case.fires.items():
        (series,) = found[alert]
        assert case.labels.items() <= series["labels"].items()
        assert series["labels"]["severity"] == RULES[alert]["labels"]["severity"]
        assert TROUBLE < series["times"][0] <= TROUBLE + 60 * minutes
        assert series["times"][-1] <= OVER + REMEMBERED


def test_every_rule_fires_and_is_spared() -> None:
    """No rule is without a case that must fire it, and one that comes close and must not."""
    assert {alert for case in CASES for alert in case.fires} == RULES.keys()
    assert {case.spares for case in CASES} - {None} == RULES.keys()


@pytest.mark.process
def test_vmalert_takes_the_file() -> None:
    """Syntax, expressions and templates are valid."""
    command = [program("vmalert", "victoria-metrics"), "-dryRun", f"-rule={FILE}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule["alert"])
def test_a_rule_is_complete(rule: dict[str, Any]) -> None:
    """It waits, has a severity, and says in words which device, what it means and what to do.

    Every selector has a window of its own. The window of a bare selector depends on the server, on
    vmalert's flags and on the pace of the series, and its samples may be minutes late.
    """
    assert re.fullmatch(r"[1-9]\d*m", rule["for"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description"}
    for text in rule["annotations"].values():
        assert "{{ $labels.device_id }}" in text
    names = set(re.findall(METRIC, rule["expr"]))
    assert names
    assert {re.sub("_(sum|count|bucket)$", "", name) for name in names} <= UPLOADED
    windowed = re.sub(r"[\w:]*(\{[^}]*\})?\[[^]]+\]", "", rule["expr"])
    assert not re.findall(METRIC, windowed)


def test_the_rules_are_documented() -> None:
    """The page has a row for each rule, with its severity, in the file's order."""
    page = (FILE.parent.parent / "alerting.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert rows == [(name, rule["labels"]["severity"]) for name, rule in RULES.items()]


class Alertmanager(BaseHTTPRequestHandler):
    """Takes alerts as Alertmanager's ``POST /api/v2/alerts`` does, into a queue."""

    alerts: "queue.SimpleQueue[dict[str, Any]]"

    def do_POST(self) -> None:
        for alert in json.loads(self.rfile.read(int(self.headers["Content-Length"]))):
            self.alerts.put(alert)
        self.send_response(200)
        self.end_headers()

    def log_request(self, code: object = None, size: object = None) -> None:
        """Say nothing."""


@contextmanager
def alertmanager() -> Iterator[tuple[str, "queue.SimpleQueue[dict[str, Any]]"]]:
    """Run one; gives its address, and what it is told."""
    alerts: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    handler = type("Handler", (Alertmanager,), {"alerts": alerts})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", alerts
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.process
def test_what_a_person_reads(tmp_path: Path) -> None:
    """Evaluated as in production, each alert's words name the device, and no template fails."""
    now, moment = int(time.time()), TROUBLE + 50 * 60
    hasty = tmp_path / "hasty.yaml"
    hasty.write_text(
        yaml.safe_dump(
            {
                "groups": [
                    {
                        **group,
                        "interval": "1s",
                        "rules": [{**rule, "for": "0s"} for rule in group["rules"]],
                    }
                    for group in GROUPS
                ]
            }
        )
    )
    with VictoriaMetrics(tmp_path / "data") as server, alertmanager() as (url, alerts):
        for case in CASES:
            if "DeviceLost" in case.fires:
                send(server, 1000 * (now - moment - 6 * HOUR), lived(case, TROUBLE))
            elif case.fires:
                send(server, 1000 * (now - moment), lived(case, moment))
        options = (f"-notifier.url={url}", f"-httpListenAddr=127.0.0.1:{free_port()}")
        command = vmalert(server, hasty, *options)
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                read: dict[str, dict[str, Any]] = {}
                while read.keys() != RULES.keys():
                    alert = alerts.get(timeout=TIMEOUT)
                    read[alert["labels"]["alertname"]] = alert
            finally:
                process.terminate()
    for alert in read.values():
        for text in alert["annotations"].values():
            assert alert["labels"]["device_id"] in text
            assert not re.search("[{}<>]|NaN|%!", text)


@pytest.mark.process
def test_late_samples_end_a_silence_and_tell_of_failures(tmp_path: Path) -> None:
    """While nothing arrives a device is silent, and only what arrives later says that uploads
    failed; what has arrived late makes no difference from what was in time.
    """
    case = next(case for case in CASES if "UploadsFailing" in case.fires)

    def holds(alert: str, at: float) -> bool:
        answer = server.get(
            "/api/v1/query",
            query=RULES[alert]["expr"],
            time=str(START_MS // 1000 + at),
            nocache="1",
        )
        return bool(json.loads(answer)["data"]["result"])

    with VictoriaMetrics(tmp_path) as server:
        send(server, START_MS, lived(case, TROUBLE))
        assert holds("DeviceSilent", OVER)
        assert not holds("UploadsFailing", OVER)
        late = [one for one in lived(case, OVER + 60) if one[1] >= TROUBLE]
        send(server, START_MS, late)
        assert not holds("DeviceSilent", OVER)
        assert holds("UploadsFailing", OVER)
