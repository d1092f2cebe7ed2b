"""Two processes at one folder, at each stage: one does the work, the other is refused in a line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images import class_folders, make_shards

PROGRAM = Path(__file__).parent / "two_writers.py"
ROUNDS = 50

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]


def race(stage, source, scratch, rounds=ROUNDS):
    """Give what two_writers.py counted."""
    root = PROGRAM.parent.parent
    path = os.pathsep.join(map(str, (root, root / "tests")))
    command = [sys.executable, PROGRAM, stage, source, scratch, str(rounds)]
    scratch.mkdir()
    said = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        timeout=1500,
        check=True,
    ).stdout
    print(stage, said)
    return json.loads(said.splitlines()[-1])


@pytest.mark.parametrize("stage", ["preparation", "demonstration", "training"])
def test_one_of_two_writes_and_the_other_is_refused(stage, tmp_path):
    if stage == "training":
        source = make_shards(tmp_path, classes=3, images=12, train_shards=4, validation_shards=2)
    else:
        source = class_folders(tmp_path / "raw", classes=3, images=60)
    found = race(stage, source, tmp_path / "races")
    assert found["rounds"] == ROUNDS
    assert found["wrong"] == []
    assert found["differ"] == []
    assert found["refused"] >= ROUNDS // 2  # else they came one after the other
