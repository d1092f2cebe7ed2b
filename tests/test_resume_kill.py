"""Trainings killed by SIGKILL, some amid a save, and one on a full disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images import make_shards
from tests.small_training import train, untrained

PROGRAM = Path(__file__).parent / "small_training.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return make_shards(root, classes=3, images=12, train_shards=4, validation_shards=2)


@pytest.mark.parametrize(
    ("replicas", "kills", "xla"), [(1, 20, "false"), (2, 10, "false"), (2, 3, "true")]
)
def test_killed_trainings_end_bit_for_bit_as_one_never_killed(
    replicas, kills, xla, data_dir, tmp_path
):
    """What is printed stands in the README: pytest -s -m slow tests/test_resume_kill.py."""
    command = [sys.executable, PROGRAM, data_dir, tmp_path, str(kills), str(replicas), xla]
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parent.parent)}
    said = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, timeout=1500, check=True
    ).stdout
    print(f"\n{replicas} replicas, xla: {xla}: {said}")
    result = json.loads(said)
    assert result["kills"] >= kills
    assert result["amid_a_save"] >= kills / 5
    assert result["differ"] == 0


def test_a_full_disk_leaves_the_checkpoint_before(data_dir, tmp_path):
    often = {"checkpoint_minutes": 1e-9, "keep_checkpoints": 99}
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk]
    if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        with pytest.raises(OSError, match="could not be written .*No space left on device"):
            train(untrained(), data_dir, disk / "run", **often)
        kept = sorted(disk.glob("run/checkpoints/newest/*.index"))
        assert kept
        assert not list(disk.glob("run/checkpoints/*/*_temp*"))
        run_dir = tmp_path / "with_room"
        run_dir.mkdir()
        subprocess.run(["cp", "-r", f"{disk}/run/.", run_dir], check=True)
    finally:
        subprocess.run(["umount", disk], check=True)
    assert len(train(untrained(), data_dir, run_dir).history["loss"]) == 3
