"""Tells which network interfaces are hardware, and which.

Source: ``/sys/class/net`` (Documentation/ABI/testing/sysfs-class-net; net/core/net-sysfs.c). An
interface of a driver has a link ``device``; tunnels, VPNs, VLANs, bridges and the like have none.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from belatwist.errors import BelaError
from belatwist.procfs import text
from belatwist.procfs.reader import MissingError, Reader

_DIRECTORY = "class/net"

_MONITORS = frozenset({b"801", b"802", b"803"})
"""Values of ``type`` of interfaces that show what others on the same radio carry
(``ARPHRD_IEEE80211``, include/uapi/linux/if_arp.h)."""

# Of a device's uevent. Nothing else of it is used: neither addresses nor serial numbers.
_DRIVER = re.compile(rb"DRIVER=([A-Za-z0-9_.-]{1,64})")
_USB = re.compile(rb"PRODUCT=([0-9a-fA-F]{1,4})/([0-9a-fA-F]{1,4})/[0-9a-fA-F]{1,4}")
_PCI = re.compile(rb"PCI_ID=([0-9a-fA-F]{4}):([0-9a-fA-F]{4})")
_PLACE = re.compile(r"[A-Za-z0-9@:._-]{1,64}", re.ASCII)

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class NetworkDevice:
    """The hardware of an interface.

    :ivar name: its place on its bus and its maker's number for its kind, as far as they are known:
        ``1-1.2:1.4 2c7c:0125``. No two units of a kind have one place at a time.
    :ivar driver: the name of its driver.
    """

    name: str
    driver: str


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found of an interface.

    :ivar inode: of its entry; another one has come under its name when this differs.
    :ivar seen: the place and the uevent of its device; ``None`` when it has none.
    """

    inode: int
    seen: tuple[str, bytes] | None
    device: NetworkDevice | None


class Interfaces:
    """Remembers the devices of interfaces for as long as they are there.

    :param sysfs: the reader of ``/sys``.
    """

    def __init__(self, sysfs: Reader) -> None:
        self._sysfs = sysfs
        self._known: dict[str, _Known] = {}

    def devices(self, names: Iterable[str]) -> Mapping[str, NetworkDevice | None]:
        """Return the devices of interfaces; ``None`` for an interface without one.

        An interface that is known costs nothing beyond the listing unless it has a device, whose
        place is compared; where the place is not known, its uevent. That does not wake the device.
        """
        try:
            inodes = self._sysfs.entries(_DIRECTORY)
        except BelaError:
            inodes = {}
        known: dict[str, _Known] = {}
        for name in names:
            if name in inodes:
                known[name] = self._look(name, inodes[name])
        self._known = known
        return {name: one.device for name, one in known.items()}

    def _look(self, name: str, inode: int) -> _Known:
        known = self._known.get(name)
        if known is not None and known.inode != inode:
            known = None
        if known is not None and known.seen is None:
            return known
        path = f"{_DIRECTORY}/{name}/device"
        try:
            place = self._sysfs.link(path)
        except MissingError:
            return _Known(inode, None, None)
        except BelaError:  # There is a device that does not say where.
            place = ""
        # Another kind of device in the same place would have made another entry.
        if known is not None and known.seen is not None and place and known.seen[0] == place:
            return known
        try:
            uevent = self._sysfs.read(f"{path}/uevent")
        except BelaError:
            uevent = b""
        seen = (place, uevent)
        if known is not None and known.seen == seen:
            return known
        return _Known(inode, seen, None if self._monitors(name) else self._device(path, *seen))

    def _monitors(self, name: str) -> bool:
        try:
            return self._sysfs.read(f"{_DIRECTORY}/{name}/type").strip() in _MONITORS
        except BelaError:
            return False

    def _device(self, path: str, place: str, uevent: bytes) -> NetworkDevice:
        fields = {}
        for line in uevent.splitlines():
            for pattern in (_DRIVER, _USB, _PCI):
                match = pattern.fullmatch(line)
                if match:
                    fields[pattern] = match
        kind = fields.get(_USB) or fields.get(_PCI)
        number = (
            ":".join(text.name(part).lower().zfill(4) for part in kind.groups()) if kind else ""
        )
        parts = [place if _PLACE.fullmatch(place) else "", number]
        driver = text.name(fields[_DRIVER][1]) if _DRIVER in fields else self._driver(path)
        return NetworkDevice(" ".join(part for part in parts if part) or UNKNOWN, driver)

    def _driver(self, path: str) -> str:
        try:
            driver = self._sysfs.link(f"{path}/driver")
        except BelaError:
            return UNKNOWN
        return driver if _PLACE.fullmatch(driver) else UNKNOWN
