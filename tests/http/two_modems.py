"""Asks two modems that have the same address, each in a network namespace of its own.

A module that a test runs as root within a new network namespace: ``unshare --net``.
"""

import codecs
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import react

from belatwist.errors import BelaError
from belatwist.http.get import HttpGetter

ADDRESS = "192.168.8.1"

MODEM = """
import http.server, subprocess, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{sys.argv[1]} {self.client_address[0]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

print("born", flush=True)
sys.stdin.readline()
for command in (
    "link set lan name lan up", f"address add {sys.argv[2]}/24 dev lan", "link set lo up"
):
    subprocess.run(["ip", *command.split()], check=True)
server = http.server.HTTPServer((sys.argv[2], 80), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()  # Until the test's process ends.
"""


def ip(command: str) -> None:
    """Run a command of iproute2."""
    subprocess.run(["ip", *command.split()], check=True)


def modem(number: int) -> "subprocess.Popen[str]":
    """Start a modem, behind the interface ``modem0`` or ``modem1`` of this namespace."""
    started = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", MODEM, f"modem{number}", ADDRESS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdin is not None
    assert started.stdout is not None
    assert started.stdout.readline() == "born\n"
    ip(f"link add modem{number} type veth peer name lan netns {started.pid}")
    ip(f"address add 192.168.8.10{number}/24 dev modem{number}")
    ip(f"link set modem{number} up")
    started.stdin.write("\n")
    started.stdin.flush()
    assert started.stdout.readline() == "ready\n"
    return started


async def ask(reactor: Any) -> None:
    """Print which modem has answered, by the interface that was asked for."""
    getter = HttpGetter(reactor)
    found: dict[str, str] = {}
    for interface in ("modem0", "modem1", "modem2"):
        for source in (None, "192.168.8.101"):
            try:
                answer = await getter.get(
                    f"http://{ADDRESS}/", interface=interface, source=source, timeout=2.0
                )
                said = answer.body.decode()
            except BelaError as error:
                said = f"{type(error).__name__} {error}"
            found[f"{interface} {source or 'any'}"] = said
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    ip("link set lo up")
    for which in ("all", "default"):
        # Answers come by the interface that the routes do not prefer.
        Path(f"/proc/sys/net/ipv4/conf/{which}/rp_filter").write_text("0")
    modems = [modem(0), modem(1)]
    codecs.lookup("charmap")  # Twisted does, and another user may not read the interpreter's files.
    if sys.argv[1] != "0":
        os.setgroups([])
        os.setgid(int(sys.argv[1]))
        os.setuid(int(sys.argv[1]))
    react(ask)
