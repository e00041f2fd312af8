"""Which paths of VictoriaMetrics are refused as ``remote.url``, and what is named instead."""

import pytest

from belatwist.config import parse
from belatwist.config.endpoints import right_url
from belatwist.errors import ConfigError

HOST = "http://host:8428"

OTHER = (
    "/api/v1/import/prometheus",
    "/api/v1/import/prometheus/metrics/job/bela",
    "/api/v1/import/csv",
    "/api/v1/import/native",
    "/api/v1/write",
    "/api/v1/push",
    "/write",
    "/api/v2/write",
    "/influx/write",
    "/influx/api/v2/write",
    "/api/put",
    "/opentsdb/api/put",
    "/datadog/api/v1/series",
    "/datadog/api/beta/sketches",
    "/newrelic/infra/v2/metrics/events/bulk",
    "/opentelemetry/v1/metrics",
    "/opentelemetry/api/v1/push",
    "/zabbixconnector/api/v1/history",
    "/graphite/tags/tagSeries",
    "/api/v1/query_range",
    "/api/v1/export/csv",
    "/api/v1/admin/tsdb/delete_series",
    "/vmui",
    "/health",
    "/ping",
    "/-/reload",
)


@pytest.mark.parametrize("path", OTHER)
def test_another_path_of_a_single_server(path: str) -> None:
    """It is refused behind any prefix, with a slash at its end, and however it is spelt."""
    assert right_url(f"{HOST}{path}") == f"{HOST}/api/v1/import"
    assert right_url(f"{HOST}{path}/?db=x") == f"{HOST}/api/v1/import"
    assert right_url(f"{HOST}/{path.replace('i', '%69')}") == f"{HOST}/api/v1/import"
    assert right_url(f"https://[::1]/vm/x{path}") == "https://[::1]/vm/x/api/v1/import"


@pytest.mark.parametrize("path", ["", *OTHER, *(f"/prometheus{path}" for path in OTHER)])
@pytest.mark.parametrize("tenant", ["0", "12:34", "multitenant"])
def test_another_path_of_a_cluster(tenant: str, path: str) -> None:
    """The tenant stays."""
    path = path or "/prometheus"
    right = f"{HOST}/vm/insert/{tenant}/prometheus/api/v1/import"
    assert right_url(f"{HOST}/vm/insert/{tenant}{path}") == right
    assert right_url(f"{HOST}/vm/insert/{tenant}{path}/") == right
    assert right_url(f"{HOST}/vm/select/{tenant}{path}") == right


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/import",
        "/api/v1/import?extra_label=site=north",
        "//api/v1/import",
        "/prometheus/api/v1/import",
        "/vm/api/v1/import",
        "/influx/api/v1/import",
        "/insert/0/prometheus/api/v1/import",
        "/insert/4294967295:1/prometheus/api/v1/import",
        "/api/v1/import/",
        "",
        "/",
        "/ingest",
        "/metrics",
        "/bela/overwrite",
        "/writes",
        "/write/bela",
        "/api/v1/import/bela",
        "/influx",
        "/insert/bela",
        "/x?next=/api/v1/write",
    ],
)
def test_the_right_path_and_one_of_a_proxys_own(path: str) -> None:
    """What is not known may lead to the import endpoint, and is accepted."""
    assert right_url(f"{HOST}{path}") is None


def test_the_refusal_names_the_right_url() -> None:
    """A query, which may be secret, is in neither of the two."""
    url = f"{HOST}/api/v1/import/prometheus?authKey=hunter2"
    with pytest.raises(ConfigError) as refusal:
        parse(f"device: {{id: x}}\nremote: {{url: '{url}'}}", "f.yaml", {})
    assert str(refusal.value) == (
        f'f.yaml: remote.url: "{HOST}/api/v1/import/prometheus?…": this path of VictoriaMetrics'
        f" takes no JSON lines; use {HOST}/api/v1/import"
    )
