"""The program as its users meet it: a real ``twistd``, real signals, a real database."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from belatwist import __version__
from tests.process import TIMEOUT, Twistd, free_port, twistd, write_config

CHECKOUT = Path(__file__).parent.parent
BOARD = Path(__file__).parent / "fixtures" / "orangepi5plus"

EVERY_SECOND = [
    {"name": name, "interval": "1s"}
    for name in (
        "cpu.usage",
        "cpu.temperature",
        "memory.usage",
        "disk.io",
        "network.traffic",
        "system.load",
        "system.uptime",
    )
]


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``twistd`` to its end."""
    return subprocess.run(
        twistd(*arguments), cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    """Read a database that a service may have open."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def get(url: str) -> Any:
    """Fetch a JSON document."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        return json.load(answer)


def receiver_config(folder: Path, **sections: Any) -> tuple[Path, str]:
    """Write a configuration that uploads each second to a receiver of its own; and its URL."""
    url = f"http://127.0.0.1:{free_port()}"
    remote = {"enabled": True, "url": f"{url}/api/v1/import", "upload_interval": "1s"}
    return write_config(folder, remote=remote, metrics=EVERY_SECOND, **sections), url


@pytest.mark.process
def test_version(tmp_path: Path) -> None:
    """``--version`` prints the one version there is."""
    for service in ("bela", "bela-receiver"):
        assert run(service, "--version", cwd=tmp_path).stdout == f"belatwist {__version__}\n"


@pytest.mark.process
def test_help_explains_every_option(tmp_path: Path) -> None:
    """``--help`` lists every option, each with a text."""
    assert "--with-receiver" in run("bela", "--help", cwd=tmp_path).stdout
    text = run("bela-receiver", "--help", cwd=tmp_path).stdout
    for option in ("--port", "--host", "--verbose"):
        line = next(line for line in text.splitlines() if option in line)
        assert len(line.split(maxsplit=2)) == 3


@pytest.mark.process
def test_a_missing_configuration_is_one_line(tmp_path: Path) -> None:
    """Without a configuration the program says so, and what to do, and writes nothing."""
    done = run("bela", "--config", "none.yaml", cwd=tmp_path)
    assert done.returncode == os.EX_CONFIG
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "none.yaml" in done.stderr
    assert "--config" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_the_default_configuration_is_looked_for(tmp_path: Path) -> None:
    """Without ``--config`` the system's file is read; here it does not exist."""
    default = Path("/etc/belabox-metrics/config.yaml")
    if default.exists():
        pytest.skip(f"{default} exists on this machine")
    assert str(default) in run("bela", cwd=tmp_path).stderr


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bela", "--nonsense"], "nonsense"),
        (["bela", "stray"], "stray"),
        (["bela-receiver", "--port", "http"], "http"),
        (["bela-receiver", "--port", "65536"], "65536"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    """It is named, ``--help`` is pointed at, the exit status is 1."""
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.mark.process
def test_a_refused_configuration_is_one_line(tmp_path: Path) -> None:
    """A refusal names file, key, value and what is allowed; nothing is written."""
    config = write_config(tmp_path, remote={"retry": {"jitter_percent": 120}})
    done = run("bela", "--config", str(config), cwd=tmp_path)
    assert done.returncode == os.EX_CONFIG
    assert done.stderr.count("\n") == 1
    for word in (str(config), "remote.retry.jitter_percent", "120"):
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.process
def test_a_key_with_a_new_name_is_logged_once(tmp_path: Path) -> None:
    """A configuration with an old name works; the log names it, the new one and the file."""
    config = write_config(tmp_path, remote={"lookout_interval": "5s"})
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        service.expect_event("Metrics collected")
        assert service.stop() == 0
        events = [json.loads(line) for line in service.log.rest()]
    (warning,) = [one for one in events if one.get("event") == "config.key_renamed"]
    assert warning["level"] == "WARN"
    assert (warning["file"], warning["old"], warning["new"]) == (
        str(config),
        "remote.lookout_interval",
        "remote.reconnect_interval",
    )


@pytest.mark.process
@pytest.mark.parametrize(
    ("section", "key", "content"),
    [
        ("storage", "path", None),
        ("remote", "tls_ca_file", "-----BEGIN CERTIFICATE-----\nrubbish\n"),
    ],
)
def test_a_file_that_cannot_serve_is_one_line(
    section: str, key: str, content: str | None, tmp_path: Path
) -> None:
    """A folder for a database, rubbish for certificates: the key and the file are named."""
    path = tmp_path / "thing"
    path.mkdir() if content is None else path.write_text(content)
    config = write_config(tmp_path, **{section: {key: str(path)}})
    done = run("bela", "--config", str(config), cwd=tmp_path)
    assert done.returncode == os.EX_CONFIG
    assert done.stderr.count("\n") == 1
    assert f"{section}.{key}: " in done.stderr
    assert str(path) in done.stderr


@pytest.mark.process
def test_with_receiver_needs_a_loopback_url(tmp_path: Path) -> None:
    """The receiver never listens where the configuration does not point on this machine."""
    config = write_config(tmp_path, remote={"url": "http://192.0.2.1/api/v1/import?key=secret"})
    done = run("bela", "--config", str(config), "--with-receiver", cwd=tmp_path)
    assert done.returncode == os.EX_CONFIG
    assert "remote.url" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.process
def test_first_run(tmp_path: Path) -> None:
    """The development configuration, as ``make run`` uses it: collected, stored, uploaded, counted.

    Within ten seconds; the console says so; Ctrl-C ends with status 0 and a completed session.
    """
    text = (CHECKOUT / "configs" / "config.dev.yaml").read_text()
    port = free_port()
    text = text.replace("9090", str(port)).replace("9100", str(free_port()))
    (tmp_path / "config.yaml").write_text(text)
    with Twistd("bela", "--config", "config.yaml", "--with-receiver", cwd=tmp_path) as service:
        service.expect(f"Listening on http://127.0.0.1:{port}/ (receiver)")
        service.expect("Metrics collected")
        service.expect("Received ")
        uploaded = 0
        names: set[str] = set()
        # The first upload may come before the second reading, without which there is no usage.
        while "cpu_usage_percent" not in names:
            found = re.search(r"Uploaded (\d+) samples", service.expect("Uploaded "))
            assert found is not None
            uploaded += int(found[1])
            series = get(f"http://127.0.0.1:{port}/api/v1/series")
            names = {one["metric"]["__name__"] for one in series}
        health = get(f"http://127.0.0.1:{port}/health")
        assert service.stop(signal.SIGINT) == 0
    assert health["samples"] == uploaded > 0
    assert {"memory_used_bytes", "srt_packet_loss_percent"} <= names
    database = tmp_path / "var" / "metrics.db"
    assert query(database, "SELECT status FROM sessions") == [("completed",)]
    assert query(database, "SELECT count(*) FROM metrics WHERE uploaded = 1")[0][0] > 0


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_in_order(number: signal.Signals, tmp_path: Path) -> None:
    """The exit status is 0, the session is completed, the log is written back into the database."""
    config = write_config(tmp_path)
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        service.expect_event("scheduler.tick_stored")
        assert service.stop(number) == 0
    assert not (tmp_path / "metrics.db-wal").exists()
    assert query(tmp_path / "metrics.db", "SELECT status FROM sessions") == [("completed",)]


@pytest.mark.process
def test_the_disk_is_looked_after(tmp_path: Path) -> None:
    """The write-ahead log is emptied at its interval and at the end; what is old is deleted."""
    config, _ = receiver_config(
        tmp_path, storage={"wal_checkpoint_interval": "1s", "retention": {"uploaded": "1s"}}
    )
    with Twistd("bela", "--config", str(config), "--with-receiver", cwd=tmp_path) as service:
        emptied = service.expect_event("WAL checkpoint completed")
        deleted = service.expect_event("retention.deleted")
        assert service.stop() == 0
        rest = "".join(service.log.rest())
    assert emptied["reduction_percent"] == 100
    assert emptied["log_frames"] == emptied["frames_checkpointed"] > 0
    assert emptied["bytes_reclaimed"] > 0
    assert deleted["count"] > 0
    assert "Running final WAL checkpoint before shutdown" in rest
    assert query(tmp_path / "metrics.db", "SELECT status FROM sessions") == [("completed",)]


@pytest.mark.process
def test_new_names_are_bounded(tmp_path: Path) -> None:
    """Interfaces whose names never come back fill the limit; the uplink goes on being stored."""
    table = tmp_path / "proc" / "net" / "dev"
    table.parent.mkdir(parents=True)
    header = "".join((BOARD / "proc/net/dev").read_text().splitlines(keepends=True)[:2])

    def rename(number: int) -> None:
        names = ["usb0", *(f"x{number}n{i}" for i in range(31))]
        text = header + "".join(f"{name}: {' '.join('5' * 16)}\n" for name in names)
        new = table.with_name("dev.new")
        new.write_text(text)
        new.replace(table)

    rename(0)
    port = free_port()
    config = write_config(
        tmp_path,
        storage={"max_series": 100},
        health={"enabled": True, "port": port},
        paths={"procfs": str(tmp_path / "proc"), "sysfs": str(tmp_path)},
        metrics=[{"name": "network.traffic", "interval": "0.2s", "config": {"max_interfaces": 40}}],
    )
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        refused = service.expect_event("store.series_refused")
        for number in range(1, 4):
            rename(number)
            service.expect_event("scheduler.tick_stored")
            service.expect_event("scheduler.tick_stored")
        health = get(f"http://127.0.0.1:{port}/health")
        assert service.stop() == 0
    assert refused["reason"] == "storage.max_series (100) are alive"
    assert health["status"] == "degraded"
    assert any("new series are not stored" in reason for reason in health["reasons"])
    storage = health["storage"]
    assert storage["series_alive"] == storage["max_series"] == 100
    assert storage["metrics_refused"] > 0
    assert storage["refused_series"][0].startswith("network.")
    database = tmp_path / "metrics.db"
    assert query(database, "SELECT count(*) FROM series") == [(100,)]
    uplink = (
        'SELECT count(*) FROM metrics WHERE tags = \'{"interface":"usb0"}\' GROUP BY timestamp_ms'
    )
    ticks = query(database, uplink)
    assert len(ticks) > 5
    assert set(ticks) == {(6,)}


@pytest.mark.process
def test_hangup_does_not_end_it(tmp_path: Path) -> None:
    """SIGHUP leaves the service running; it reopens the log."""
    config = write_config(tmp_path)
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        service.expect_event("scheduler.tick_stored")
        service.process.send_signal(signal.SIGHUP)
        service.expect_event("process.log_reopened")
        assert service.stop() == 0


@pytest.mark.process
@pytest.mark.parametrize("env", [{}, {"PYTHONFAULTHANDLER": "1"}])
def test_an_abort_tells_where_it_hung(tmp_path: Path, env: dict[str, str]) -> None:
    """SIGABRT, as systemd's watchdog sends it, leaves the stack of every thread.

    The main thread's stack comes first. The interpreter prints all of them between two of its steps
    (``abort``): to walk through the stacks of running threads would crash at times.
    """
    config = write_config(tmp_path)
    with Twistd("bela", "--config", str(config), cwd=tmp_path, env=env) as service:
        service.expect_event("Metrics collected")
        assert service.stop(signal.SIGABRT) == -signal.SIGABRT
        text = "\n".join(service.log.rest())
    main, _, every = text.partition("\nThread ")
    assert "Fatal Python error: Aborted" in main
    assert "in startReactor" in main
    assert "Thread 0x" not in main.rpartition("Stack (most recent call first)")[2]
    assert "in _serve" in every
    assert "in abort" in every


@pytest.mark.process
def test_a_second_instance_is_refused(tmp_path: Path) -> None:
    """It says in one line which process holds the lock, exits with 1, and disturbs nothing."""
    config = write_config(tmp_path)
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        service.expect_event("scheduler.tick_stored")
        with Twistd("bela", "--config", str(config), cwd=tmp_path) as second:
            refusal = second.expect_event("Start failed: lock ")
            assert second.wait() == 1
        assert service.stop() == 0
    assert refusal["level"] == "CRITICAL"
    assert f"process {service.process.pid}" in refusal["msg"]
    assert query(tmp_path / "metrics.db", "SELECT status FROM sessions") == [("completed",)]


@pytest.mark.process
def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    """A service that cannot listen says where and why, and exits with 1."""
    config, url = receiver_config(tmp_path)
    port = url.rpartition(":")[2]
    with Twistd("bela-receiver", "--port", port, cwd=tmp_path) as receiver:
        receiver.expect(f"Listening on {url}/ (receiver)")
        with Twistd("bela", "--config", str(config), "--with-receiver", cwd=tmp_path) as service:
            refusal = service.expect_event("Start failed: receiver: cannot listen")
            assert service.wait() == 1
        with Twistd("bela-receiver", "--port", port, cwd=tmp_path) as second:
            second.expect("cannot listen")
            assert second.wait() == 1
        assert receiver.stop() == 0
    assert f"127.0.0.1:{port}" in refusal["msg"]
    assert "in use" in refusal["msg"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("CREATE TABLE metrics (id INTEGER)", "another program"),
        (
            "CREATE TABLE schema_version (id INTEGER PRIMARY KEY, version INTEGER);"
            "INSERT INTO schema_version (version) VALUES (4)",
            "version 4",
        ),
        ("CREATE TABLE recipes (id INTEGER)", "another program"),
    ],
)
def test_a_foreign_database_is_left_alone(sql: str, words: str, tmp_path: Path) -> None:
    """A database that this version does not know is refused in one line, and stays as it was."""
    database = tmp_path / "metrics.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(sql)
    before = query(database, "SELECT sql FROM sqlite_schema")
    config = write_config(tmp_path)
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        refusal = service.expect_event("Start failed: database ")
        assert service.wait() == 1
    assert words in refusal["msg"]
    assert query(database, "SELECT sql FROM sqlite_schema") == before


@pytest.mark.process
def test_a_kill_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    """After SIGKILL the session is failed, its samples are delivered by the next run, once."""
    config, url = receiver_config(tmp_path)
    database = tmp_path / "metrics.db"
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        service.expect_event("upload.on_hold")
        service.expect_event("scheduler.tick_stored")
        service.process.kill()
        service.process.wait()
    stored = query(database, "SELECT count(*) FROM metrics WHERE uploaded = 0")[0][0]
    assert stored > 0
    with Twistd("bela", "--config", str(config), "--with-receiver", cwd=tmp_path) as service:
        service.expect_event("session.crashed")
        assert service.expect_event("upload.completed")["count"] >= stored
        received = get(f"{url}/api/v1/series")
        assert service.stop() == 0
    assert query(database, "PRAGMA integrity_check") == [("ok",)]
    assert query(database, "SELECT status FROM sessions ORDER BY number") == [
        ("failed",),
        ("completed",),
    ]
    of_failed = "FROM metrics m JOIN sessions s ON s.id = m.session_id WHERE s.status = 'failed'"
    ended = f"SELECT max(s.end_time) = max(m.timestamp_ms) {of_failed}"
    assert query(database, ended) == [(1,)]
    assert query(database, f"SELECT count(*) {of_failed} AND m.uploaded = 1") == [(stored,)]
    assert sum(series["duplicates"] for series in received) == 0


@pytest.mark.process
def test_a_fixture_board_end_to_end(tmp_path: Path) -> None:
    """With its roots pointed at a board's files, the service stores exactly that board's values."""
    roots = {"procfs": str(BOARD / "proc"), "sysfs": str(BOARD / "sys")}
    config = write_config(tmp_path, metrics=EVERY_SECOND, paths=roots)
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        service.expect_event("scheduler.tick_stored")
        assert service.stop() == 0
    rows = query(tmp_path / "metrics.db", "SELECT metric_name, tags, metric_value FROM metrics")
    values = {(name, tags): value for name, tags, value in rows}
    assert values["thermal.zone_temp", '{"zone":"soc-thermal"}'] == 51.769
    assert values["network.tx_bytes_total", '{"interface":"wwan0"}'] == 950118712
    assert values["network.rx_errors_total", '{"interface":"eth1"}'] == 0
    assert ("network.tx_bytes_total", '{"interface":"lo"}') not in values
    assert ("disk.read_bytes_total", '{"device":"nvme0n1"}') in values


@pytest.mark.process
def test_uploads_switched_off(tmp_path: Path) -> None:
    """With ``remote.enabled: false`` everything is collected and stays pending."""
    config = write_config(tmp_path)
    with Twistd("bela", "--config", str(config), cwd=tmp_path) as service:
        service.expect_event("scheduler.tick_stored")
        assert service.stop() == 0
        events = [json.loads(line) for line in service.log.rest()]
    assert not [e for e in events if e.get("event", "").startswith("upload.")]


@pytest.mark.process
def test_every_line_of_a_json_log_is_json(tmp_path: Path) -> None:
    """From the first line to the last, Twisted's own included."""
    config, _ = receiver_config(tmp_path)
    with Twistd("bela", "--config", str(config), "--with-receiver", cwd=tmp_path) as service:
        service.expect_event("upload.completed")
        assert service.stop() == 0
        lines = service.log.rest()
    events = [json.loads(line) for line in lines]
    assert all(list(e)[:3] == ["time", "level", "msg"] for e in events)
    assert "starting up" in events[0]["msg"]


def test_the_development_configuration_is_what_the_readme_says() -> None:
    """``make run`` uses the shipped file, and its receiver listens where it uploads to."""
    config = yaml.safe_load((CHECKOUT / "configs" / "config.dev.yaml").read_text())
    assert config["remote"]["url"].startswith("http://127.0.0.1:")
    assert "configs/config.dev.yaml --with-receiver" in (CHECKOUT / "Makefile").read_text()
