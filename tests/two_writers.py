"""A program that sends two processes to one folder, round after round: see test_two_writers.py.

It forks them once, before TensorFlow has begun any work: a round costs no import or compilation.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from kit import locks
from kit.files import hash_file
from kit.prep import demo
from kit.training import run_state
from tests.killed_run import write as prepare_shards
from tests.small_training import train, untrained


def preparation(source, folder):
    prepare_shards(source, folder)


def demonstration(source, folder):
    demo.make_demo(raw_dir=folder, demo_views=10, seed=0)


def training(source, folder):
    try:
        train(untrained(), source, folder, epochs=1, steps_per_epoch=2)
    finally:
        locks.release(folder / run_state.LOCK)  # which a training keeps until its model is saved


STAGES = {call.__name__: call for call in (preparation, demonstration, training)}


def serve(stage, source):
    """Fork a process that works in each folder it is told of; give where to tell, and its answers.

    Both are files, with a line for each folder.
    """
    asked, ask = os.pipe()
    said, say = os.pipe()
    if os.fork() == 0:
        os.close(ask)
        os.close(said)
        with os.fdopen(asked) as folders, os.fdopen(say, "w") as answers:
            for folder in iter(folders.readline, ""):
                print(
                    json.dumps(attempt(stage, source, Path(folder[:-1]))), file=answers, flush=True
                )
        os._exit(0)
    os.close(asked)
    os.close(say)
    return os.fdopen(ask, "w"), os.fdopen(said)


def attempt(stage, source, folder):
    try:
        STAGES[stage](source, folder)
    except locks.InUse as error:
        return str(error)
    except BaseException as error:
        return f"failed: {type(error).__name__}: {error}"
    return "done"


def hashes(folder):
    return {
        str(path.relative_to(folder)): hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".csv"  # it holds seconds
    }


def main(stage, source, scratch, rounds):
    """Print how often one was refused, and what was neither done nor refused, or differs."""
    counts, whole = {"rounds": rounds, "refused": 0, "wrong": [], "differ": []}, None
    processes = [serve(stage, source) for _ in range(2)]
    for number in range(rounds):
        folder = scratch / str(number)
        for ask, _ in processes:
            print(folder, file=ask, flush=True)
        found = [json.loads(answers.readline()) for _, answers in processes]
        refused = [said for said in found if " by process " in said and "\n" not in said]
        counts["refused"] += len(refused)
        if sorted(found, key=len)[0] != "done" or len(refused) + found.count("done") != 2:
            counts["wrong"].append(found)
        if stage != "training":  # its files hold the time
            whole = whole or hashes(folder)
            counts["differ"] += [number] * (hashes(folder) != whole)
            counts["differ"] += [path.name for path in scratch.rglob("*.lock")]
        shutil.rmtree(folder)
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
