"""Runs killed by SIGKILL: nothing is lost, nothing half-written taken for whole, none lingers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from images import class_folders, png

TESTS = Path(__file__).parent
KILLS = 30

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]


@pytest.fixture
def raw_dir(tmp_path):
    raw = class_folders(tmp_path / "raw", classes=3, images=60)
    (raw / "class0/page.jpg").write_bytes(b"<html>")
    (raw / "class1/odd.jpg").write_bytes(png(30, 40))
    return raw


def start(*words, **options):
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, env=environment, text=True, **options)


def test_killed_runs_end_byte_for_byte_as_an_uninterrupted_one(raw_dir, tmp_path):
    program = start(TESTS / "killed_run.py", raw_dir, tmp_path, KILLS, 0, stdout=subprocess.PIPE)
    result = json.loads(program.communicate(timeout=500)[0])
    assert result["kills"] >= KILLS
    assert result["differ"] == []
    assert any(0 < shards < 30 for shards in result["stood"])  # some were cut in their midst


def test_a_run_killed_before_any_of_its_steps_leaves_nothing_behind(raw_dir, tmp_path):
    """Chance seldom meets the steps at the end, which take a thousandth of the time."""
    program = start(TESTS / "killed_run.py", raw_dir, tmp_path, stdout=subprocess.PIPE)
    result = json.loads(program.communicate(timeout=500)[0])
    assert {"os.rename .manifest", "os.rmdir unfinished"} <= {
        re.sub(r"[.][0-9a-f]+[.].*", "", step) for step in result["steps"]
    }
    assert result["differ"] == []


def children(process):
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_workers_end_with_their_killed_parent(tmp_path):
    """Without it they would wait for ever, and hold their memory."""
    program = start(
        "-c",
        "import time\n"
        "from kit.prep.workers import run_tasks\n"
        "if __name__ == '__main__':\n"
        "    list(run_tasks(time.sleep, [600.0] * 4, processes=2))",
    )
    deadline = time.monotonic() + 120
    while len(alive := children(program.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.5)  # two workers, and multiprocessing's resource tracker
    time.sleep(30)  # until they have imported TensorFlow and wait in their tasks
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    while any(Path(f"/proc/{child}").exists() for child in alive) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert len(alive) == 3
    assert not any(Path(f"/proc/{child}").exists() for child in alive)
