"""Tells by the type of a thermal zone what it measures.

The types are the names of nodes in device trees, those of the kernel (``thermal-zones`` in
arch/arm64/boot/dts) and of vendors' kernels (Rockchip, NVIDIA, MediaTek, Unisoc). Some drivers name
zones themselves, such as intel/x86_pkg_temp_thermal.c, intel/int340x_thermal and others below
drivers/thermal.
"""

import re
from enum import IntEnum


class Part(IntEnum):
    """What a zone measures; the least is the best for the temperature of the processor."""

    PROCESSOR = 0
    """The processor, or another part of the same chip."""
    UNKNOWN = 1
    """Something whose type does not say, such as ``acpitz``, which is often near the processor."""
    OTHER = 2
    """Something that is certainly not the processor."""


_PROCESSOR = re.compile(
    # Rockchip (bigcore0, littlecore, center, package). Raspberry Pi, Allwinner, i.MX, Amlogic,
    # Exynos, StarFive (cpu-thermal, cpu0-thermal, cpu_thermal_zone, cpul). Qualcomm (cpuss0,
    # cpu-0-0). NVIDIA (CPU-therm, MCPU-therm, tj). MediaTek (mtktscpu, cpu-big0). Unisoc (apcpu0).
    # x86 (x86_pkg_temp, TCPU, B0D4). Parts of the same chip are as hot as the cores.
    r"(?:a|ap|b|m)?(?:cpu|cpul|cpub|cpuss|gpu|gpuss|npu|npuss|apu|vpu|nspss?|soc|package|pkg|core"
    r"|cluster|bigcore|littlecore|big|little|mid|center|tj|ddr|hevc|ve|tsens|aoss)[0-9]*"
    r"|mtktscpu[0-9]*|tcpu|b0d4|bcm2835|imx|armada|coretemp",
    re.ASCII,
)
_OTHER = re.compile(
    # Wi-Fi and modems, batteries and chargers, power supplies, storage, and Intel's platform hub
    # and its policy device, which always says 20 degrees.
    r"(?:iwlwifi|wifi|wlan|ath[0-9]+k?|mt7[0-9]+|phy|bat[0-9]*|battery|batt|charger|chg|bms|usb|pmic"
    r"|pm[a-z]{0,2}[0-9]+[a-z0-9]*|nvme|ssd|mmc|emmc|pch|int3400|skin|board|tboard|ambient|quiet|xo"
    r"|modem|mdm|mdmss|sdr|pa|camera|lcd|dimm|sen)[0-9]*",
    re.ASCII,
)
_BETWEEN = re.compile(r"[^a-z0-9]+")


def part_of(zone_type: str) -> Part:
    """Tell what a zone measures by the words of its type (``gpu_thermal``, ``CPU-therm``).

    A word of another part decides: ``cpu-pmic-thermal`` is a power supply.
    """
    words = [word for word in _BETWEEN.split(zone_type.lower()) if word]
    if any(_OTHER.fullmatch(word) for word in words):
        return Part.OTHER
    if any(_PROCESSOR.fullmatch(word) for word in words):
        return Part.PROCESSOR
    return Part.UNKNOWN
