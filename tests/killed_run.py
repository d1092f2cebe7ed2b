"""A program that is killed while it writes shards, again and again: see test_kill.py.

Forks before TensorFlow has begun any work, so that a run costs milliseconds and not an import.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from kit.prep import manifest, shards, sources

LONGEST = 0.25  # seconds that a run is left alive; about what an uninterrupted one takes


def write(raw_dir, data_dir):
    index = sources.read_index(raw_dir=raw_dir, validation_fraction=0.2, seed=0, subset=False)
    return shards.write_shards(
        index,
        data_dir=data_dir,
        raw_dir=raw_dir,
        train_shards=24,
        validation_shards=6,
        seed=0,
        check="header",
        store_short_side=0,
        store_quality=90,
        quarantine_budget=0.1,
        processes=1,
        spark_master="",
    )


def run_and_kill(raw_dir, data_dir, seconds) -> bool:
    """Tell whether the run was killed before its end."""
    child = os.fork()
    if child == 0:
        write(raw_dir, data_dir)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the run failed by itself"
    return os.WIFSIGNALED(status)


def main(raw_dir, scratch, wanted, seed):
    """Print how many runs were killed, in how many sets, and how many shards stood at each kill."""
    source = random.Random(seed)
    cut, stood, sets, differ = Path(scratch) / "cut", [], 0, 0
    while len(stood) < wanted or cut.exists():
        if len(stood) < wanted and run_and_kill(raw_dir, cut, source.uniform(0, LONGEST)):
            stood.append(len(list(cut.glob(f"{manifest.JOURNAL}/*-of-*"))))
            continue
        write_in_child(raw_dir, cut)
        sets += 1
        write_in_child(raw_dir, Path(scratch) / "whole")
        whole = {path.name: path.read_bytes() for path in (Path(scratch) / "whole").iterdir()}
        found = {path.name: path.is_file() and path.read_bytes() for path in cut.iterdir()}
        differ += whole != found
        shutil.rmtree(cut)
    print(json.dumps({"kills": len(stood), "sets": sets, "differ": differ, "stood": stood}))


def write_in_child(raw_dir, data_dir):
    child = os.fork()
    if child == 0:
        write(raw_dir, data_dir)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
