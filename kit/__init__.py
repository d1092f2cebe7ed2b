"""A ResNet-50 kit. TensorFlow's own first lines, which tell a user nothing, are not shown."""

import contextlib
import importlib.machinery
import os
import sys
import threading
from pathlib import Path

from kit import notebook

__version__ = "0.1.0"
ROOT = Path(__file__).resolve().parent.parent  # relative paths in parameters mean this folder

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors, no notes and warnings of C++


_stderr = threading.RLock()  # it is the whole process's


@contextlib.contextmanager
def muted(into=os.devnull):
    """Drop what is written to the process's stderr, by C++ as by Python, within the block.

    into: the number of an open file to which it is written instead.
    """
    with _stderr, open(into, "wb", closefd=into == os.devnull) as file:  # noqa: PTH123
        try:
            kept = os.dup(2)
        except OSError:  # it is closed
            kept = os.open(os.devnull, os.O_WRONLY)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class _QuietTensorFlow:
    """A finder by which TensorFlow is imported muted: its first lines heed no level."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def exec_module(module):
                with muted():
                    execute(module)
                    if not any(map(Path.exists, map(Path, GPU_DRIVERS))):
                        module.config.list_physical_devices()  # says that it has found no driver

            spec.loader.exec_module = exec_module
        return spec


GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")  # of Linux and of WSL2
sys.meta_path.insert(0, _QuietTensorFlow)
notebook.install()
