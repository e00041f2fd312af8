"""The commands of the documentation for a backup, with the real programs."""

import json
import re
import shlex
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.process import until_listening
from tests.victoria.server import VictoriaMetrics

pytestmark = [pytest.mark.process, pytest.mark.victoria]

PAGE = Path(__file__).parents[2] / "docs" / "victoriametrics.md"
LINE = b'{"metric":{"__name__":"m","device_id":"d"},"values":[1,2],"timestamps":[%d,%d]}'


def documented(program: str, paths: dict[str, str]) -> list[str]:
    """Return a command of the page, with paths of the test's own."""
    found = re.search(rf"```sh\n({program} .*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    text = found[1].replace("\\\n", " ")
    for documented, own in paths.items():
        assert documented in text
        text = text.replace(documented, own)
    return shlex.split(text)


def test_a_backup_can_be_restored(tmp_path: Path) -> None:
    """While the server runs, into an empty folder; nothing is left of the snapshot."""
    if shutil.which("vmbackup") is None:
        pytest.skip("vmbackup is not installed")
    data, backup, restored = (str(tmp_path / name) for name in ("data", "backup", "restored"))
    with VictoriaMetrics(Path(data)) as server:
        until_listening(server.port)
        body = LINE % (1_700_000_000_000, 1_700_000_010_000)
        urllib.request.urlopen(server.import_url, body).close()
        before = server.export("d")
        assert len(before) == 1
        paths = {
            "/var/lib/victoria-metrics": data,
            "http://127.0.0.1:8428": server.url,
            "/var/backups/victoria": backup,
        }
        subprocess.run(documented("vmbackup", paths), check=True, capture_output=True)
        assert json.loads(server.get("/snapshot/list"))["snapshots"] == []
    paths = {"/var/backups/victoria": backup, "/var/lib/victoria-metrics": restored}
    subprocess.run(documented("vmrestore", paths), check=True, capture_output=True)
    with VictoriaMetrics(Path(restored)) as server:
        until_listening(server.port)
        assert server.export("d") == before


def test_what_is_older_than_the_retention_is_acknowledged_and_thrown_away(tmp_path: Path) -> None:
    """As the page says: 204, and counted by its reason."""
    with VictoriaMetrics(tmp_path, "-retentionPeriod=30d") as server:
        until_listening(server.port)
        body = LINE % (1_000_000_000_000, 1_000_000_010_000)
        with urllib.request.urlopen(server.import_url, body) as answer:
            assert answer.status == 204
        assert server.export("d") == {}
        assert server.counter('vm_rows_ignored_total{reason="small_timestamp"}') == 2
