"""Seconds, CPU seconds and memory of things done again and again, and a table of their medians."""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple, Optional

_TICKS = os.sysconf("SC_CLK_TCK")


class Measurement(NamedTuple):
    """One run: wall clock and CPU seconds, the latter of all processes that it waited for."""

    seconds: float
    cpu: float


class Table:
    """Measurements by the name of what was measured."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Measurement]] = defaultdict(list)
        self.memory: dict[str, int] = {}

    @contextmanager
    def measure(self, name: str, daemon: Optional[int] = None) -> Iterator[None]:
        """Measure what is done meanwhile, by child processes or by the process `daemon`."""
        cpu, start = _cpu(daemon), time.perf_counter()
        yield
        self.runs[name].append(Measurement(time.perf_counter() - start, _cpu(daemon) - cpu))
        last = self.runs[name][-1]
        load = os.getloadavg()[0]
        print(f"  {name}: {last.seconds:.1f} s, {last.cpu:.1f} CPU s (load {load:.1f})", flush=True)

    def seconds(self, name: str) -> float:
        return statistics.median(run.seconds for run in self.runs[name])

    def cpu(self, name: str) -> float:
        return statistics.median(run.cpu for run in self.runs[name])

    def print(self, base: str) -> None:
        """The medians, with their ratios to those of `base`."""
        print(f"\n{'':56}{'seconds':>9}{'ratio':>7}{'CPU s':>8}{'ratio':>7}{'peak MB':>9}")
        for name in self.runs:
            seconds, cpu = self.seconds(name), self.cpu(name)
            memory = str(self.memory[name]) if name in self.memory else ""
            print(
                f"{name:56}{seconds:9.2f}{seconds / self.seconds(base):7.2f}"
                f"{cpu:8.2f}{cpu / self.cpu(base):7.2f}{memory:>9}"
            )


def _cpu(daemon: Optional[int]) -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = used.ru_utime + used.ru_stime
    if daemon and sys.platform == "linux":
        stat = Path(f"/proc/{daemon}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, stat[11:15])) / _TICKS
    return total


def peak_memory(process: int) -> Optional[int]:
    """The most memory that the process ever had resident, in MB; None where that is not known."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1000
