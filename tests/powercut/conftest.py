"""What the power-cut tests need: root, loop devices, FUSE; and somebody to upload to."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy
from tests.powercut import disk
from tests.process import Twistd, free_port


@pytest.fixture(scope="session")
def new_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image with an empty file system; whoever asks for it can have recording disks."""
    folder = tmp_path_factory.mktemp("disk")
    image = folder / "new"
    try:
        if os.geteuid():
            raise RuntimeError("this is not root")
        disk.make(image)
        with disk.RecordingDisk(image, folder / "tried"):
            pass
    except (OSError, RuntimeError) as error:
        if os.environ.get("BELA_REQUIRE_ROOT_TESTS") == "1":
            pytest.fail(f"BELA_REQUIRE_ROOT_TESTS=1, but {error}")
        pytest.skip(f"no disk to cut the power of: {error}")
    return image


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    """A proxy before a receiver: it knows what was sent, and when."""
    port = free_port()
    with (
        Twistd("bela-receiver", "--port", str(port), cwd=tmp_path) as receiver,
        Proxy(port) as running,
    ):
        receiver.expect(f"{port}")
        yield running
