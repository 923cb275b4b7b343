"""What results depend on beside the data: the kind of processor, and the seed."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
MKL_MODE = "MKL_CBWR"
"""The environment variable by which Intel's MKL, which multiplies torch's matrices, chooses its code. Left to itself it
divides a sum among threads on Intel's processors, so that the last digits depend on their number."""
WEEKS_APART = 1_000_003
"""More than there will ever be weeks: no week of a seed draws what one of the next seed does."""


@cache
def processor(device: str) -> str:
    """The kind of processor behind torch's `device`: libraries choose their code, and so the last digits, by it.

    Of a CPU its architecture, its maker where the kernel tells it, the widest vector instructions that torch uses, and
    MKL's mode if one is set ("x86_64 GenuineIntel AVX512 AUTO,STRICT"); of a GPU its name.
    """
    import torch

    if not device.startswith("cpu"):
        return torch.cuda.get_device_name(device)
    parts = [platform.machine(), cpu_maker(), torch.backends.cpu.get_cpu_capability(), os.environ.get(MKL_MODE)]
    return " ".join(filter(None, parts))


def cpu_maker() -> str:
    """The maker of the CPU, as it names itself; empty where the kernel does not tell it."""
    lines = CPU_INFO.read_text("utf-8").splitlines() if CPU_INFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


@contextmanager
def seeded(seed: int, week: int) -> Iterator[None]:
    """Draws torch's random numbers from `seed` and the number of the `week`; those of the process go on afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed * WEEKS_APART + week)
        yield
