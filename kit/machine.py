"""What this machine has."""

import os
import threading
from contextlib import contextmanager


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Room:
    """A number of things, such as pixels in memory, that threads may hold together at the most."""

    def __init__(self, most: int):
        self.free = most
        self.changed = threading.Condition()

    @contextmanager
    def taken(self, number: int):
        """Wait until so many are free, and hold them within the block; `most` at the most."""
        with self.changed:
            self.changed.wait_for(lambda: self.free >= number)
            self.free -= number
        try:
            yield
        finally:
            with self.changed:
                self.free += number
                self.changed.notify_all()
