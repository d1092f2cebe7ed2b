"""Memory: an index of ImageNet's size, and workers that do not notice how large the split is."""

import json
import subprocess
from pathlib import Path

import pytest
from images import jpeg
from test_kill import TESTS, start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc"),
]
IMAGENET = 1_281_167


def measure(tmp_path, images):
    """Give the MiB that index, plan and one worker take."""
    raw_dir, data_dir = tmp_path / "raw", tmp_path / f"shards{images}"
    raw_dir.mkdir(exist_ok=True)
    data_dir.mkdir()
    (raw_dir / "a.jpg").write_bytes(jpeg(96, 128))
    size = (raw_dir / "a.jpg").stat().st_size
    words = [TESTS / "large_index.py", raw_dir, data_dir, images, size]
    program = start(*words, stdout=subprocess.PIPE)
    return json.loads(program.communicate(timeout=500)[0])


def test_index_fits_in_600_mib_and_workers_stay_as_they_are(tmp_path):
    small, large = measure(tmp_path, 8 * 1251), measure(tmp_path, IMAGENET)
    print(f"\n10,008 images: {small}\n{IMAGENET:,} images: {large}")
    assert large["index"] < 600
    assert large["worker"] < small["worker"] + 30
