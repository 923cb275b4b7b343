"""The kind of processor that computes: results are the same bytes only on processors of one kind."""

import platform
from functools import cache
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")


@cache
def processor(device: str) -> str:
    """The kind of processor behind torch's `device`: libraries choose their code, and so the last digits, by it.

    Of a CPU its architecture, its maker where the kernel tells it, and the widest vector instructions that torch uses
    ("x86_64 GenuineIntel AVX512"); of a GPU its name.
    """
    if not device.startswith("cpu"):
        return torch.cuda.get_device_name(device)
    return " ".join([platform.machine(), *_maker(), torch.backends.cpu.get_cpu_capability()])


def _maker() -> list[str]:
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    return [line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")][:1]
