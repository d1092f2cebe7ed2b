"""The most memory that a process has had, or several together."""

import re
import time
from contextlib import suppress
from pathlib import Path


def peak() -> float:
    """Give this process's peak in GB; getrusage counts that of the one which started it, too."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20


def peak_of_tree(process) -> float:
    """Give the peak in GB of a running Popen and all that it started, once it has ended.

    Looked at twenty times a second; what they share counts once.
    """
    most = 0
    while process.poll() is None:
        found = 0
        for pid in _tree(process.pid):
            with suppress(OSError, TypeError):  # it has just ended
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                found += int(re.search(r"Pss:\s+(\d+)", text)[1])
        most = max(most, found)
        time.sleep(0.05)
    return most / 2**20


def _tree(pid):
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in path.read_text().split():
                yield from _tree(child)
