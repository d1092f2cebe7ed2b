"""The index of all of ImageNet fits in memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kit import ROOT


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_index_of_imagenet_takes_under_600_mib(tmp_path):
    (tmp_path / "raw").write_bytes(b"")  # raw_dir must not be empty
    script = Path(__file__).parent / "whole_index.py"
    found = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    images, mebibytes = map(int, found.stdout.split())
    assert images == 1_281_167 + 50_000
    assert 200 < mebibytes < 600
