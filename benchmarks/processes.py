"""What processes cost."""

import os
import time
from pathlib import Path

__all__ = ["cpu_s", "family_cpu_s", "memory_kb"]

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used, to the nanosecond (CPUCLOCK_SCHED of its clock)."""
    return time.clock_gettime(~pid << 3 | 2)


def family_cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used, and all that it started, alive or not."""
    families: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = _words(int(folder.name))
        except OSError:  # it has just ended, and what it used is its parent's
            continue
        families.setdefault(int(words[1]), []).append(int(folder.name))
        ticks[int(folder.name)] = sum(map(int, words[11:15]))

    def ticks_of(one: int) -> int:
        return ticks[one] + sum(map(ticks_of, families.get(one, ())))

    return ticks_of(pid) / TICKS


def memory_kb(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def _words(pid: int) -> list[str]:
    """What Linux tells of a process (proc_pid_stat(5)), from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
