"""A configuration is read exactly, or refused in one line that says what to change."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from belatwist.collectors.disk import DiskIOOptions
from belatwist.collectors.network import NetworkTrafficOptions
from belatwist.collectors.registry import SOURCES
from belatwist.config import (
    Config,
    NoOptions,
    Remote,
    default_entries,
    parse,
)
from belatwist.errors import ConfigError

ID = "device: {id: x}\n"
PATTERN = "a regular expression for the whole name, at most 200 characters"
ID_RULE = "printable text of 1 to 128 bytes, without spaces at its ends; quote a number"
URL_RULE = "a URL such as http://host:8428/path or https://host/path, port 1 to 65535"
HOST_NAME_RULE = "a host name such as box.example.org, without a port"
HEALTH_RULE = "a path such as /health, without a slash at its end, other than /metrics"
HOST_RULE = "an IP address such as 127.0.0.1, 0.0.0.0 or ::1, or localhost"
DURATION_RULE = "a duration such as 500ms, 30s or 1h30m"
REMOTE_KEYS = ", ".join(Remote.__struct_fields__)
VARIABLES = (
    "variables are not expanded; write the value itself, or make the file with a tool that expands"
    " them, such as envsubst"
)
TOP_KEYS = "device, storage, remote, health, logging, monitoring, paths, metrics"

REFUSALS = [
    # The whole file.
    ("", ": the file is empty; it needs at least device.id"),
    ("# nothing\n", ": the file is empty; it needs at least device.id"),
    ("[]", f": top level: a list: a mapping with the keys {TOP_KEYS}"),
    ("hello", f': top level: "hello": a mapping with the keys {TOP_KEYS}'),
    ("a: [",
     ":1:5: while parsing a flow node, expected the node content, but found '<stream end>'"),
    ("a: b: c", ":1:5: mapping values are not allowed here"),
    ("a:\n\t- b", ":2:1: while scanning for the next token, found character '\\t' that cannot "
     "start any token"),
    ("a: \x01", ":1:4: a character that YAML does not allow"),
    ("b: 1\na: \ud800", ":2:4: a character that YAML does not allow"),
    ('a: "\\UFFFFFFFF"', ":1:7: a number out of range"),
    (ID + "---\n" + ID,
     ":2:1: expected a single document in the stream, but found another document"),
    (ID + "remote: &r {}\nhealth: *r", ": line 3: aliases (*) are not allowed"),
    (ID + "x: !!python/name:os.system ''", ": x: line 2: tags (!) are not allowed"),
    (ID + "x: !!set {}", ": x: line 2: tags (!) are not allowed"),
    (ID + "? [a]\n: b", ": top level: line 2: a key must be text"),
    ("x: " + "[" * 30, ": line 1: nested too deeply"),
    # Keys.
    (ID + "remote:\n  url: a\n  url: b", ": remote.url: given again on line 4: first on line 3"),
    (ID + "metrics:\n- {name: a, name: b}",
     ": metrics[0].name: given again on line 3: first on line 3"),
    # Variables.
    ("device:\n  id: ${HOSTNAME}", f': device.id: "${{HOSTNAME}}": {VARIABLES}'),
    (ID + "remote: {url: 'http://${HOST:-hunter2}/x'}", f': remote.url: "${{HOST}}": {VARIABLES}'),
    (ID + "remote: {lookout_interval: '${}'}",
     f': remote.lookout_interval: "${{}}": {VARIABLES}'),
    (ID + "storage:\n  path: /var/${device.id}/x", f': storage.path: "${{device}}": {VARIABLES}'),
    (ID + "metrics:\n- {name: disk.io, config: {allowed_devices: 'a|${DISK'}}",
     f': metrics[0].config.allowed_devices: "${{DISK}}": {VARIABLES}'),
    ("device: {id: a-${X}}", f":1:17: ${{…}}: {VARIABLES}"),
    (ID + "remote: {url: http://${H}/x}", f":2:23: ${{…}}: {VARIABLES}"),
    (ID + "unknown: [a, '${X}']", f': unknown[1]: "${{X}}": {VARIABLES}'),
    ("${X}", f': top level: "${{X}}": {VARIABLES}'),
    (ID + "rmote: {}", ": rmote: unknown key: did you mean remote?"),
    (ID + "remote: {retry: {jiter_percent: 5}}",
     ": remote.retry.jiter_percent: unknown key: did you mean jitter_percent?"),
    (ID + "remote: {proxy_url: 'http://p'}",
     ": remote.proxy_url: unknown key: known: " + REMOTE_KEYS),
    (ID + "remote: {tls_key_file: /k}",
     ": remote.tls_key_file: unknown key: known: " + REMOTE_KEYS),
    (ID + "remote: {username: x}", ": remote.username: unknown key: known: " + REMOTE_KEYS),
    (ID + "remote: {ca_file: /c}", ": remote.ca_file: unknown key: did you mean tls_ca_file?"),
    (ID + "remote: {token: x}", ": remote.token: unknown key: did you mean auth_token_file?"),
    (ID + "remote: {uri: x}", ": remote.uri: unknown key: did you mean url?"),
    (ID + "remote: {interval: 5s}",
     ": remote.interval: unknown key: did you mean upload_interval?"),
    (ID + "log: {}", ": log: unknown key: did you mean logging?"),
    (ID + "device2: {}", ": device2: unknown key: did you mean device?"),
    (ID + "paths: {zzzz: 1}", ": paths.zzzz: unknown key: known: procfs, sysfs"),
    (ID + "paths: {5: 1}", ": paths.5: unknown key: known: procfs, sysfs"),
    (ID + "paths: {'a b\\n': 1}", ': paths."a b\\\\n": unknown key: known: procfs, sysfs'),
    (ID + 'paths: {"a\\nb": 1}', ': paths."a\\nb": unknown key: known: procfs, sysfs'),
    (ID + "paths: {<<: {procfs: /p}}", ': paths."<<": unknown key: known: procfs, sysfs'),
    (ID + "remote: {auth_token: hunter2}",
     ": remote.auth_token: unknown key: did you mean auth_token_file?"),
    # The device.
    ("remote: {}", f": device.id: missing: {ID_RULE}"),
    ("device:", f": device.id: missing: {ID_RULE}"),
    ("device: {id: }", f": device.id: null: {ID_RULE}"),
    ("device: {id: ''}", f': device.id: "": {ID_RULE}'),
    ("device: {id: ' x'}", f': device.id: " x": {ID_RULE}'),
    ("device: {id: 7}", f": device.id: 7: {ID_RULE}"),
    ("device: {id: no}", f": device.id: false: {ID_RULE}"),
    ('device: {id: "a\\nb"}', f': device.id: "a\\nb": {ID_RULE}'),
    ('device: {id: "a\\x85b"}', f': device.id: "a\\u0085b": {ID_RULE}'),
    (f"device: {{id: {'x' * 129}}}", f': device.id: "{"x" * 78}…: {ID_RULE}'),
    ("device: x", ': device: "x": a mapping with the keys id'),
    ("device: [x]", ": device: a list: a mapping with the keys id"),
    # Types.
    (ID + "remote: {enabled: 1}", ": remote.enabled: 1: true or false"),
    (ID + "remote: {enabled: 'true'}", ': remote.enabled: "true": true or false'),
    (ID + "remote: {url: }", f": remote.url: null: {URL_RULE}"),
    (ID + "health: {port: '80'}", ': health.port: "80": a whole number from 1 to 65535'),
    (ID + "health: {port: 80.5}", ": health.port: 80.5: a whole number from 1 to 65535"),
    (ID + "health: {port: true}", ": health.port: true: a whole number from 1 to 65535"),
    (ID + "health: {port: {}}", ": health.port: a mapping: a whole number from 1 to 65535"),
    (ID + "health: {port: 010}", ': health.port: "010": a whole number from 1 to 65535'),
    (ID + "health: {port: 1:30}", ': health.port: "1:30": a whole number from 1 to 65535'),
    (ID + f"health: {{port: {'9' * 5000}}}",
     f': health.port: "{"9" * 78}…: a whole number from 1 to 65535'),
    (ID + "storage: {path: 2026-01-01}\nlogging: {level: }",
     ": logging.level: null: debug, info, warn or error"),
    (ID + "metrics: {}", ": metrics: a mapping: a list of at most 100 entries"),
    (ID + "metrics:", ": metrics: null: a list of at most 100 entries"),
    (ID + "metrics: [a]",
     ': metrics[0]: "a": a mapping with the keys name, interval, enabled, config'),
    # Ranges.
    (ID + "health: {port: 0}", ": health.port: 0: a whole number from 1 to 65535"),
    (ID + "health: {port: 65536}", ": health.port: 65536: a whole number from 1 to 65535"),
    (ID + "remote: {compression_level: 0}",
     ": remote.compression_level: 0: a whole number from 1 to 9"),
    (ID + "remote: {compression_level: 10}",
     ": remote.compression_level: 10: a whole number from 1 to 9"),
    (ID + "remote: {batch_size: 0}", ": remote.batch_size: 0: a whole number from 1 to 10000"),
    (ID + "remote: {retry: {jitter_percent: 150}}",
     ": remote.retry.jitter_percent: 150: a whole number from 0 to 100"),
    (ID + "remote: {retry: {jitter_percent: -1}}",
     ": remote.retry.jitter_percent: -1: a whole number from 0 to 100"),
    (ID + "remote: {retry: {max_attempts: 0}}",
     ": remote.retry.max_attempts: 0: a whole number from 1 to 20"),
    (ID + "remote: {retry: {backoff_multiplier: 0.5}}",
     ": remote.retry.backoff_multiplier: 0.5: a number from 1 to 100"),
    (ID + "remote: {retry: {backoff_multiplier: .nan}}",
     ': remote.retry.backoff_multiplier: ".nan": a number from 1 to 100'),
    (ID + "storage: {cache_mb: 0}", ": storage.cache_mb: 0: a whole number from 1 to 1024"),
    (ID + "storage: {retention: {max_size_mb: 0}}",
     ": storage.retention.max_size_mb: 0: a whole number from 1 to 1048576"),
    (ID + "storage: {synchronous: off}", ": storage.synchronous: false: full or normal"),
    (ID + "storage: {synchronous: FULL}", ': storage.synchronous: "FULL": full or normal'),
    (ID + "logging: {level: trace}", ': logging.level: "trace": debug, info, warn or error'),
    (ID + "logging: {format: text}", ': logging.format: "text": json or console'),
    (ID + "logging: {output: ''}", ': logging.output: "": stdout, stderr or a file path'),
    (ID + "logging: {max_size_mb: 0}", ": logging.max_size_mb: 0: a whole number from 1 to 1024"),
    (ID + "monitoring: {self_metrics_interval: 48h}",
     ': monitoring.self_metrics_interval: "48h": a duration from 100ms to 24h, such as 30s'),
    # Durations.
    (ID + "remote: {upload_interval: 30}",
     ": remote.upload_interval: 30: a duration needs a unit, write 30s"),
    (ID + "remote: {upload_interval: '30'}",
     ': remote.upload_interval: "30": a duration needs a unit, write 30s'),
    (ID + "remote: {upload_interval: 1.5}",
     ": remote.upload_interval: 1.5: a duration needs a unit, write 1.5s"),
    (ID + "remote: {upload_interval: 30 s}", f': remote.upload_interval: "30 s": {DURATION_RULE}'),
    (ID + "remote: {upload_interval: -30s}", f': remote.upload_interval: "-30s": {DURATION_RULE}'),
    (ID + "remote: {upload_interval: 0s}", f': remote.upload_interval: "0s": {DURATION_RULE}'),
    (ID + "remote: {upload_interval: yes}", f": remote.upload_interval: true: {DURATION_RULE}"),
    (ID + "remote: {upload_interval: 1us}",
     ': remote.upload_interval: "1us": a duration from 100ms to 24h, such as 30s'),
    (ID + "remote: {timeout: 25h}",
     ': remote.timeout: "25h": a duration from 100ms to 24h, such as 30s'),
    (ID + "remote: {retry: {max_backoff: 2h}}",
     ': remote.retry.max_backoff: "2h": a duration from 1ms to 1h, such as 30s'),
    (ID + "metrics: [{name: cpu.usage, interval: 99ms}]",
     ': metrics[0].interval: "99ms": a duration from 100ms to 24h, such as 30s'),
    # URLs.
    *(
        (ID + f"remote: {{url: '{url}'}}", f': remote.url: "{url}": {URL_RULE}')
        for url in (
            "",
            "localhost:8428",
            "//localhost/x",
            "ftp://host/x",
            "http://",
            "http:///x",
            "http://:80/x",
            "http://host:0/x",
            "http://host:65536/x",
            "http://host:eighty/x",
            "http://ho st/x",
            "http://höst/x",
            "http://[::1/x",
            "http://[zz]/x",
            "http://host/^",
        )
    ),
    (ID + "remote: {url: 'http://bob:hunter2@host/x'}",
     ": remote.url: <not shown>: a URL without user and password; use remote.auth_token_file"),
    (ID + "monitoring: {clock_skew_url: 'http://bob:hunter2@host/x'}",
     ": monitoring.clock_skew_url: <not shown>: a URL without user and password"),
    (ID + "remote: {url: 'ftp://bob:hunter2@host/x'}",
     ": remote.url: <not shown>: a URL without user and password; use remote.auth_token_file"),
    (ID + "remote: {url: 'http://host/x#y'}", ': remote.url: "http://host/x#y": a URL without a '
     "fragment (#)"),
    (ID + "remote: {url: 'htp://host/x?authKey=hunter2'}",
     f': remote.url: "htp://host/x?…": {URL_RULE}'),
    (ID + f"remote: {{url: 'http://host/{'x' * 2048}'}}",
     f': remote.url: "http://host/{"x" * 66}…: {URL_RULE}, at most 2048 characters'),
    (ID + "monitoring: {clock_skew_url: no}", f": monitoring.clock_skew_url: false: {URL_RULE}"),
    # Paths, hosts.
    (ID + "health: {path: health}", f': health.path: "health": {HEALTH_RULE}'),
    (ID + "health: {path: /health/}", f': health.path: "/health/": {HEALTH_RULE}'),
    (ID + "health: {path: /metrics}", f': health.path: "/metrics": {HEALTH_RULE}'),
    (ID + "health: {path: '/a b'}", f': health.path: "/a b": {HEALTH_RULE}'),
    (ID + "health: {host: example.org}", f': health.host: "example.org": {HOST_RULE}'),
    (ID + "health: {allowed_hosts: box}",
     ': health.allowed_hosts: "box": a list of at most 64 entries'),
    (ID + "health: {allowed_hosts: ['box:9100']}",
     f': health.allowed_hosts[0]: "box:9100": {HOST_NAME_RULE}'),
    (ID + "health: {allowed_hosts: [box, '*']}",
     f': health.allowed_hosts[1]: "*": {HOST_NAME_RULE}'),
    (ID + "health: {allowed_hosts: [a..b]}",
     f': health.allowed_hosts[0]: "a..b": {HOST_NAME_RULE}'),
    (ID + "health: {allowed_hosts: ['']}", f': health.allowed_hosts[0]: "": {HOST_NAME_RULE}'),
    (ID + f"health: {{allowed_hosts: [{'a' * 254}]}}",
     f': health.allowed_hosts[0]: "{"a" * 78}…: {HOST_NAME_RULE}'),
    (ID + "health: {host: 127.0.0.256}", f': health.host: "127.0.0.256": {HOST_RULE}'),
    (ID + 'storage: {path: "a\\0b"}', ': storage.path: "a\\u0000b": a file path'),
    (ID + "storage: {path: ''}", ': storage.path: "": a file path'),
    (ID + "remote: {auth_token_file: 5555}",
     ": remote.auth_token_file: <not shown>: a file path"),
    (ID + "remote: {auth_token_file: [hunter2]}",
     ": remote.auth_token_file: <not shown>: a file path"),
    (ID + 'remote: {auth_token_file: "hunter2\\n"}',
     ": remote.auth_token_file: <not shown>: a file path"),
    # Collectors.
    (ID + "metrics: [{name: cpu.usge}]", ': metrics[0].name: "cpu.usge": did you mean cpu.usage?'),
    (ID + "metrics: [{interval: 5s}]",
     ": metrics[0].name: missing: known: " + ", ".join(SOURCES)),
    (ID + "metrics: [{name: [cpu.usage]}]", ": metrics[0].name: a list: did you mean cpu.usage?"),
    (ID + "metrics: [{name: cpu.usage}, {name: disk.io}, {name: cpu.usage}]",
     ': metrics[2].name: "cpu.usage": metrics[0] has this collector already'),
    (ID + "metrics: [{name: cpu.usage, config: {foo: 1}}]",
     ": metrics[0].config.foo: unknown key: cpu.usage has no options"),
    (ID + "metrics: [{name: disk.io, config: {max_interfaces: 1}}]",
     ": metrics[0].config.max_interfaces: unknown key: known: allowed_devices, sector_size"),
    (ID + "metrics: [{name: disk.io, config: {sector_size: 512}}]",
     ": metrics[0].config.sector_size: 512: kernel or logical"),
    (ID + "metrics: [{name: network.traffic, config: {max_interfaces: 0}}]",
     ": metrics[0].config.max_interfaces: 0: a whole number from 1 to 1000"),
    (ID + "metrics: [{name: network.traffic, config: {include_ifaces: eth0}}]",
     ': metrics[0].config.include_ifaces: "eth0": a list of at most 64 entries'),
    (ID + "metrics: [{name: network.traffic, config: {exclude_ifaces: [lo, 5]}}]",
     f": metrics[0].config.exclude_ifaces[1]: 5: {PATTERN}"),
    (ID + "metrics: [{name: network.traffic, config: {exclude_ifaces: ['']}}]",
     f': metrics[0].config.exclude_ifaces[0]: "": {PATTERN}, and not empty, because no name is'),
    (ID + "metrics: [{name: disk.io, config: {allowed_devices: '(sd'}}]",
     f': metrics[0].config.allowed_devices: "(sd": {PATTERN} (missing ), unterminated subpattern)'),
    (ID + "metrics: [{name: disk.io, config: {allowed_devices: 'a)(b'}}]",
     f': metrics[0].config.allowed_devices: "a)(b": {PATTERN} (unbalanced parenthesis)'),
    (ID + "metrics: [{name: disk.io, config: {allowed_devices: '[[a]'}}]",
     f': metrics[0].config.allowed_devices: "[[a]": {PATTERN} (Possible nested set at position 1)'),
    (ID + "metrics: [{name: disk.io, config: {allowed_devices: 'a{99999999999}'}}]",
     f': metrics[0].config.allowed_devices: "a{{99999999999}}": {PATTERN} (too complex)'),
    (ID + f"metrics: [{{name: disk.io, config: {{allowed_devices: '{'a' * 201}'}}}}]",
     f': metrics[0].config.allowed_devices: "{"a" * 78}…: {PATTERN}'),
    # Values that contradict each other.
    (ID + "remote: {chunk_size: 100, batch_size: 99}",
     ": remote.chunk_size: 100: at most remote.batch_size (99)"),
    (ID + "remote: {retry: {initial_backoff: 90s}}",
     ': remote.retry.initial_backoff: "1m30s": at most remote.retry.max_backoff (1m)'),
    (ID + "health: {degraded_threshold: {pending_metrics: 10001}}",
     ": health.degraded_threshold.pending_metrics: 10001: at most "
     "health.error_threshold.pending_metrics (10000)"),
    (ID + "health:\n  degraded_threshold: {upload_age_seconds: 60}\n"
     "  error_threshold: {upload_age_seconds: 59}",
     ": health.degraded_threshold.upload_age_seconds: 60: at most "
     "health.error_threshold.upload_age_seconds (59)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), REFUSALS)
def test_a_refusal_names_file_key_value_and_what_is_allowed(text: str, line: str) -> None:
    """Each unusable configuration is refused with exactly this line."""
    with pytest.raises(ConfigError) as refusal:
        parse(text, "f.yaml", SOURCES)
    assert str(refusal.value) == f"f.yaml{line}"


def test_a_device_is_enough() -> None:
    """With only an id, each key has its default, and all collectors of the host run."""
    config = parse("device: {id: x}", "f", SOURCES)
    assert config == Config(device=config.device, metrics=default_entries(SOURCES))
    running = [name for name, source in SOURCES.items() if source.default]
    assert [entry.name for entry in config.metrics] == running
    assert [(m.name, m.interval, m.enabled) for m in config.metrics] == [
        ("cpu.temperature", 30.0, True),
        ("cpu.usage", 10.0, True),
        ("memory.usage", 30.0, True),
        ("disk.io", 30.0, True),
        ("filesystem.usage", 60.0, True),
        ("network.traffic", 10.0, True),
        ("system.load", 30.0, True),
        ("system.uptime", 60.0, True),
    ]


def test_the_original_sample_loads_as_it_stands() -> None:
    """The sample from the specification has the meaning that its comments give."""
    text = (Path(__file__).parent / "sample.yaml").read_text("utf-8")
    config = parse(text, "sample.yaml", SOURCES)
    assert config.device.id == "belabox-001"
    assert config.storage.wal_checkpoint_interval == 3600.0
    assert (config.remote.batch_size, config.remote.chunk_size) == (2500, 50)
    assert config.remote.retry.max_backoff == 60.0
    assert config.health.error_threshold.upload_age_seconds == 600
    assert config.monitoring.clock_skew_check_interval == 300.0
    options = {metric.name: metric.config for metric in config.metrics}
    assert options["cpu.usage"] == NoOptions()
    assert options["disk.io"] == DiskIOOptions()
    network = options["network.traffic"]
    assert isinstance(network, NetworkTrafficOptions)
    assert network.exclude_ifaces is not None
    assert network.exclude_ifaces[-2:] == ("enx[0-9a-f]{12}", "usb.*")
    assert [m.name for m in config.metrics if m.interval == 5.0] == ["srt.packet_loss"]


def test_an_empty_section_has_its_defaults() -> None:
    """A section whose keys are all commented out, and a section given in part, are completed."""
    text = (
        "device: {id: x}\nremote:\nhealth: {error_threshold: {pending_metrics: 20000}}\n"
        "metrics: [{name: disk.io, config: }]"
    )
    config = parse(text, "f", SOURCES)
    assert config.remote == parse(ID, "f", SOURCES).remote
    assert config.health.error_threshold.pending_metrics == 20000
    assert config.health.error_threshold.upload_age_seconds == 600
    assert config.metrics[0].config == DiskIOOptions()
    assert config.metrics[0].interval == 30.0


def test_no_exclusions_differ_from_the_default_exclusions() -> None:
    """An empty exclude_ifaces excludes nothing; an absent one leaves it to the collector."""
    text = ID + "metrics: [{name: network.traffic, config: {exclude_ifaces: %s}}]"
    given = [parse(text % value, "f", SOURCES).metrics[0].config for value in ("[]", "null", "[a]")]
    excluded = [c.exclude_ifaces for c in given if isinstance(c, NetworkTrafficOptions)]
    assert excluded == [(), None, ("a",)]


def test_no_metrics_at_all() -> None:
    """An empty list runs no collector; it is not the same as no list."""
    assert parse(ID + "metrics: []", "f", SOURCES).metrics == ()


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ("", "http://localhost:8428/health"),
        ("remote: {url: 'https://vm.example.org/api/v1/import?extra_label=a=b'}\n",
         "https://vm.example.org/health"),
        ("remote: {url: 'http://[::1]:8428/x'}\nmonitoring:\n", "http://[::1]:8428/health"),
        ("remote: {url: 'http://a/x'}\nmonitoring: {clock_skew_url: 'http://b/y'}\n", "http://b/y"),
    ],
)  # fmt: skip
def test_the_clock_is_compared_with_the_server_that_gets_the_samples(
    section: str, url: str
) -> None:
    """Without an address of its own, the skew check asks the server of remote.url."""
    assert parse(ID + section, "f", SOURCES).monitoring.clock_skew_url == url


@pytest.mark.parametrize(
    ("sections", "ages"),
    [
        ("", (60, 600)),
        ("remote: {upload_interval: 10s}", (60, 600)),
        ("remote: {upload_interval: 45500ms}", (91, 910)),
        ("remote: {upload_interval: 5m}\nhealth:\n  degraded_threshold:", (600, 6000)),
        ("remote: {upload_interval: 5m}\nhealth: {degraded_threshold: {upload_age_seconds: 90}}",
         (90, 6000)),
        ("remote: {upload_interval: 5m}\nhealth: {error_threshold: {upload_age_seconds: 400}}",
         (400, 400)),
        ("remote: {upload_interval: 10m}\nhealth: {degraded_threshold: {upload_age_seconds: 1800}}",
         (1800, 12000)),
    ],
)  # fmt: skip
def test_health_waits_for_two_uploads(sections: str, ages: tuple[int, int]) -> None:
    """The default limits of the upload age follow the upload interval."""
    health = parse(ID + sections, "f", SOURCES).health
    assert ages == (
        health.degraded_threshold.upload_age_seconds,
        health.error_threshold.upload_age_seconds,
    )


def test_relative_paths_start_where_the_agent_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file path is absolute after loading; stdout and stderr are no paths."""
    monkeypatch.chdir(tmp_path)
    config = parse(
        ID + "storage: {path: var/m.db}\nlogging: {output: log}\npaths: {procfs: p, sysfs: /s}\n"
        "remote: {auth_token_file: t, tls_ca_file: ca.pem}",
        "f",
        SOURCES,
    )
    assert config.storage.path == str(tmp_path / "var/m.db")
    assert config.logging.output == str(tmp_path / "log")
    assert (config.paths.procfs, config.paths.sysfs) == (str(tmp_path / "p"), "/s")
    assert config.remote.auth_token_file == str(tmp_path / "t")
    assert config.remote.tls_ca_file == str(tmp_path / "ca.pem")
    assert parse(ID + "logging: {output: stderr}", "f", SOURCES).logging.output == "stderr"


def test_a_directory_that_is_gone_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path without a current directory is refused like any other value."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match=r'storage\.path: "m\.db": an absolute path'):
        parse(ID + "storage: {path: m.db}", "f", SOURCES)
    os.chdir(tmp_path)


def test_a_configuration_is_a_value() -> None:
    """Equal files give equal, hashable configurations that nothing can change."""
    one, other = parse(ID, "f", SOURCES), parse(ID, "g", SOURCES)
    assert one == other
    assert hash(one) == hash(other)
    for name in one.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(one, name, None)


def test_a_device_may_have_a_name_in_any_script() -> None:
    """An id is a label's value: any printable text, and a number's text when quoted."""
    ids = ["Rucksack-№1", "007", "2026-01-01", "a b"]
    assert [parse(f"device: {{id: {i!r}}}", "f", SOURCES).device.id for i in ids] == ids
    assert parse("device: {id: 2026-01-01}", "f", SOURCES).device.id == "2026-01-01"


KEYS = st.sampled_from(
    [
        *("device", "id", "storage", "retention", "remote", "retry", "url", "upload_interval"),
        *("health", "degraded_threshold", "port", "path", "metrics", "name", "config", "logging"),
        *("include_ifaces", "allowed_devices", "auth_token_file", "monitoring", "output"),
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary(max_size=5)
    | st.dates()
    | st.sampled_from(["30s", "http://h/x", "disk.io", "network.traffic", "a/b", "(", "stdout"])
)
OBJECTS: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
)


def _used_or_refused_in_one_line(text: str) -> None:
    try:
        config = parse(text, "f.yaml", SOURCES)
    except ConfigError as refusal:
        line = str(refusal)
        assert line.startswith("f.yaml:")
        assert line.isprintable()
        assert len(line) < 600
    else:
        hash(config)


@given(OBJECTS)
def test_any_object_is_used_or_refused(value: object) -> None:
    """Any YAML object gives a configuration or one printable line."""
    _used_or_refused_in_one_line(yaml.safe_dump(value, allow_unicode=True))


@given(OBJECTS.map(lambda value: {"device": {"id": "x"}, "remote": value}))
def test_any_section_is_used_or_refused(value: object) -> None:
    """Any object beside a valid device gives a configuration or one printable line."""
    _used_or_refused_in_one_line(yaml.safe_dump(value))


@given(st.text(alphabet=st.characters() | st.sampled_from("\n :-[]{}&*!|>'\"%@`#?,\\t<~")))
def test_any_text_is_used_or_refused(text: str) -> None:
    """Any text gives a configuration or one printable line."""
    _used_or_refused_in_one_line(text)
    _used_or_refused_in_one_line(f'device: {{id: "x\\{text}"}}')


@given(st.text())
def test_a_strange_file_name_stays_on_the_line(source: str) -> None:
    """The file's own name cannot break the line either."""
    with pytest.raises(ConfigError) as refusal:
        parse("a: [", source, SOURCES)
    assert str(refusal.value).isprintable()
