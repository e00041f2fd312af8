"""One file in user space, as a disk's backing file: it records every write and every flush.

A loop device on this file passes on what the file system above gives to its disk, a write as a
write and a cache flush as an fsync. So the recording holds the requests to a disk, in
their order. A power cut leaves any state of the medium that the recording allows.

This is the kernel's protocol without a library (include/uapi/linux/fuse.h, version 7.31), for the
one file that is the root of its file system. It answers
requests one after the other, as a disk does that acknowledges every write at once and keeps it in
its cache. Every write recorded before a flush is on the medium once the flush is answered.

Run as ``python fuse.py IMAGE MOUNTPOINT RECORDING``, as root; the image is the first state, and
stays as it is. It ends when the file is unmounted.
"""

import ctypes
import mmap
import os
import stat
import struct
import sys
import time
from collections.abc import Callable
from errno import EINTR, ENODEV, ENOENT, ENOSYS
from pathlib import Path

RECORD = struct.Struct("<QQQ")
"""A record's head: nanoseconds of Unix time, offset, length; the bytes written follow. A flush has
:data:`FLUSH` for its offset, and no bytes."""

FLUSH = (1 << 64) - 1

_MAX_WRITE = 1 << 20
_PAGE = 4096
_FORGET, _INTERRUPT, _BATCH_FORGET = 2, 36, 42  # They want no answer.
_MAX_PAGES = 1 << 22  # FUSE_MAX_PAGES: writes of more than 32 pages
_DIRECT_IO = 1  # FOPEN_DIRECT_IO: no page cache between the loop device and this process
_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_READ = struct.Struct("<QQI")
_WRITE = struct.Struct("<QQI20x")


class Disk:
    """The file.

    :param image: the first state.
    :param recording: where to record.
    """

    def __init__(self, image: Path, recording: Path) -> None:
        with image.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._recording = recording.open("wb", buffering=0)
        self._answers: dict[int, Callable[[bytes], bytes]] = {
            3: self._attributes,  # GETATTR
            4: self._attributes,  # SETATTR: there is nothing to set.
            14: lambda _: struct.pack("<QII", 0, _DIRECT_IO, 0),  # OPEN
            15: self._read,
            16: self._write,
            18: lambda _: b"",  # RELEASE
            20: self._fsync,
            25: lambda _: b"",  # FLUSH: of a descriptor that is closed, not of the disk.
            26: self._init,
        }

    def serve(self, device: int) -> None:
        """Answer the kernel until the file is unmounted.

        :param device: ``/dev/fuse``, open and mounted.
        """
        while True:
            try:
                request = os.read(device, _MAX_WRITE + _PAGE)
            except OSError as error:
                if error.errno in {EINTR, ENOENT}:  # ENOENT: a request was taken back.
                    continue
                if error.errno == ENODEV:
                    return
                raise
            _, opcode, unique, *_ = _IN.unpack_from(request)
            if opcode in {_FORGET, _INTERRUPT, _BATCH_FORGET}:
                continue
            answer = self._answers.get(opcode)
            body = answer(request) if answer else b""
            status = 0 if answer else -ENOSYS
            os.write(device, _OUT.pack(_OUT.size + len(body), status, unique) + body)

    def _init(self, _request: bytes) -> bytes:
        pages = _MAX_WRITE // _PAGE
        return struct.pack(
            "<IIIIHHIIHHI28x", 7, 31, 0, _MAX_PAGES, 0, 0, _MAX_WRITE, 1, pages, 0, 0
        )

    def _attributes(self, _request: bytes) -> bytes:
        size = len(self._bytes)
        lasting = struct.pack("<QII", 3600, 0, 0)
        numbers = struct.pack("<QQQQQQIII", 1, size, size // 512, *[0] * 6)
        return (
            lasting + numbers + struct.pack("<IIIIIII", stat.S_IFREG | 0o600, 1, 0, 0, 0, _PAGE, 0)
        )

    def _read(self, request: bytes) -> bytes:
        _, offset, size = _READ.unpack_from(request, _IN.size)
        return self._bytes[offset : offset + size]

    def _write(self, request: bytes) -> bytes:
        _, offset, size = _WRITE.unpack_from(request, _IN.size)
        data = request[_IN.size + _WRITE.size :][:size]
        self._record(offset, data)
        self._bytes[offset : offset + size] = data
        return struct.pack("<II", size, 0)

    def _fsync(self, _request: bytes) -> bytes:
        self._record(FLUSH, b"")
        return b""

    def _record(self, offset: int, data: bytes) -> None:
        self._recording.write(RECORD.pack(time.time_ns(), offset, len(data)) + data)


def main(image: str, mountpoint: str, recording: str) -> None:
    """Mount the file and serve it."""
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode={stat.S_IFREG:o},user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"recorder", os.fsencode(mountpoint), b"fuse", 0, options.encode()):
        raise SystemExit(f"cannot mount {mountpoint}: {os.strerror(ctypes.get_errno())}")
    disk = Disk(Path(image), Path(recording))
    print("ready", flush=True)
    disk.serve(device)


if __name__ == "__main__":
    main(*sys.argv[1:])
