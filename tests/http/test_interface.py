"""Two modems with the same address: the request leaves by the interface that is named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.process
@pytest.mark.parametrize("user", [0, 65534], ids=["root", "any user"])
def test_the_request_leaves_by_the_named_interface(user: int) -> None:
    """Whatever the routes prefer, and from the address that is asked for; it takes no root."""
    if os.geteuid() != 0:
        if os.environ.get("BELA_REQUIRE_ROOT_TESTS") == "1":
            pytest.fail("BELA_REQUIRE_ROOT_TESTS is set, and this is not root")
        pytest.skip("only root may make network namespaces")
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "tests.http.two_modems", str(user)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    absent = "AbsentError there is no interface modem2"
    assert json.loads(done.stdout) == {
        "modem0 any": "modem0 192.168.8.100",
        "modem1 any": "modem1 192.168.8.101",
        "modem0 192.168.8.101": "modem0 192.168.8.101",
        "modem1 192.168.8.101": "modem1 192.168.8.101",
        "modem2 any": absent,
        "modem2 192.168.8.101": absent,
    }
