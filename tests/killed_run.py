"""A program that is killed while it writes shards, again and again: see test_kill.py.

Forks before TensorFlow has begun any work, so that a run costs milliseconds and not an import.
"""

import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from images import prepare

from kit.prep import manifest_writer

LONGEST = 0.25  # seconds that a run is left alive; about what an uninterrupted one takes
STEPS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir")  # as sys.audit names them, and "open"


def write(raw_dir, data_dir, train_shards=24, validation_shards=6):
    shards = {"train_shards": train_shards, "validation_shards": validation_shards}
    share = {"validation_fraction": 0.2, "quarantine_budget": 0.1}
    return prepare(raw_dir, data_dir, **shards, **share, check="header")


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


def kill_before_step(raw_dir, data_dir, number) -> str:
    """Kill a run before its step of that number, from 0; give the step, or "" if it has fewer."""
    reader, pipe = os.pipe()
    child = os.fork()
    if child == 0:
        steps = itertools.count()

        def audit(event, arguments):
            step = event in STEPS or (event == "open" and isinstance(arguments[0], str | Path))
            if step and str(arguments[0]).startswith(str(data_dir)) and next(steps) == number:
                os.write(pipe, f"{event} {Path(arguments[0]).name}".encode())
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        write(raw_dir, data_dir, 2, 1)
        os._exit(0)
    os.close(pipe)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(reader) as pipe:
        step = pipe.read()
    assert os.WTERMSIG(status) == signal.SIGKILL if step else status == 0, "failed by itself"
    return step


def kill_at_random(raw_dir, scratch, wanted, seed):
    """Print how many runs were killed, in how many sets, and how many shards stood at each kill."""
    source = random.Random(seed)
    cut, stood, sets, differ = scratch / "cut", [], 0, []
    while len(stood) < wanted or cut.exists():
        if len(stood) < wanted and run_and_kill(raw_dir, cut, source.uniform(0, LONGEST)):
            stood.append(len(list(cut.glob(f"{manifest_writer.UNFINISHED}/*-of-*"))))
            continue
        write_in_child(raw_dir, cut)
        sets += 1
        write_in_child(raw_dir, scratch / "whole")
        differ += differences(scratch / "whole", cut)
        shutil.rmtree(cut)
    print(json.dumps({"kills": len(stood), "sets": sets, "differ": differ, "stood": stood}))


def kill_at_every_step(raw_dir, scratch):
    """Print the steps of a run, and what differs of the sets that were killed before each."""
    cut, steps, differ = scratch / "cut", [], []
    write_in_child(raw_dir, scratch / "whole", 2, 1)
    while step := kill_before_step(raw_dir, cut, len(steps)):
        write_in_child(raw_dir, cut, 2, 1)
        steps.append(step)
        differ += [f"{step}: {found}" for found in differences(scratch / "whole", cut)]
        shutil.rmtree(cut)
    print(json.dumps({"steps": steps, "differ": differ}))


def differences(whole, cut) -> list[str]:
    """Say of each file or folder that only one of the two has, or that differs, which and how."""
    wanted, found = (
        {
            path.name + "/" * path.is_dir(): path.read_bytes() if path.is_file() else b""
            for path in folder.iterdir()
        }
        for folder in (whole, cut)
    )
    lost = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    left = [f"{name} was left behind" for name in sorted(found.keys() - wanted.keys())]
    return [*lost, *left] + [
        f"{name} has other bytes: {len(found[name])}, not {len(wanted[name])} of them"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name] != found[name]
    ]


def write_in_child(raw_dir, data_dir, *numbers):
    child = os.fork()
    if child == 0:
        write(raw_dir, data_dir, *numbers)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    if len(sys.argv) == 3:
        kill_at_every_step(sys.argv[1], Path(sys.argv[2]))
    else:
        kill_at_random(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
