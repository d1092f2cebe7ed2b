"""SIGKILLs of what notebooks 03, 04 and 05 and the report write, at random moments and steps.

With those of 01 in test_kill.py and of 02 in test_resume_kill.py they are over 100.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "killed_writers.py"
KILLS = {"evaluation": 12, "inference": 10, "exports": 5, "throughput": 7, "reporting": 6}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]


@pytest.mark.parametrize("stage", KILLS)
def test_killed_writers_leave_whole_files_and_end_as_ones_never_killed(stage, tmp_path):
    root = PROGRAM.parent.parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    command = [sys.executable, PROGRAM, stage, tmp_path, str(KILLS[stage])]
    said = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, timeout=1500, check=True
    ).stdout
    print(f"\n{stage}: {said}")
    result = json.loads(said.splitlines()[-1])
    assert result["kills"] == KILLS[stage]
    assert result["sets"] >= KILLS[stage] / 10
    assert result["steps"] >= 1
    assert result["damaged"] == []
    assert result["differ"] == []
