"""What a run runs on: Python, platform, package versions, devices, commit."""

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path

from kit import __version__
from kit.machine import cores

PACKAGES = ("tensorflow", "keras", "numpy", "papermill", "tensorboard")
DEVICES = """
import json
import tensorflow as tf
details = tf.config.experimental.get_device_details
print(json.dumps([
    f"{device.name.split(':', 1)[1]} {details(device).get('device_name', '')}".strip()
    for device in tf.config.list_physical_devices()
]))
"""


def environment(root: Path) -> dict:
    """Give what the run of the repository at `root` runs on, for environment.json."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": cores(),
        "devices": _devices(),
        "packages": {"kit": __version__} | {name: _version(name) for name in PACKAGES},
        "git": _commit(root),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # tensorflow-cpu may stand for tensorflow
        return None


def _devices() -> list[str]:
    """Ask TensorFlow in another process, so that this one holds no GPU while notebooks run."""
    asked = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True)
    if asked.returncode != 0:
        last = (asked.stderr.strip().splitlines() or ["no message"])[-1]
        raise ImportError(f"TensorFlow does not start ({last})")
    return json.loads(asked.stdout.splitlines()[-1])


def _commit(root: Path) -> dict | None:
    """Give the git commit and whether files differ from it; None outside a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if git("rev-parse", "--show-prefix"):
            return None  # somebody else's repository around this folder
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None
