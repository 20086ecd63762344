"""The memory of the host, and arrays that do not fit into it."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path


def check_fits(path: Path | str, size: int) -> None:
    """Raises ValueError where a file would take more than the memory that is free."""
    if size > (free := free_host_memory()):
        raise ValueError(
            f"{path}: its header promises {size / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB of "
            "memory are free"
        )


def free_host_memory() -> float:
    """The bytes that are free on the host, and that this process may use."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    free = float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    information = Path("/proc/meminfo")
    if information.exists():  # counts what the page cache would give back
        found = re.search(r"MemAvailable:\s+(\d+) kB", information.read_text())
        free = 1024.0 * int(found[1]) if found else free
    pages = Path("/proc/self/statm")  # the pages of the process: all, …, data and stack, …
    counts = pages.read_text().split() if pages.exists() else ["0"] * 7
    for limit, field in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            used = int(counts[field]) * os.sysconf("SC_PAGE_SIZE")
            free = min(free, max(0.0, float(soft - used)))
    return free
