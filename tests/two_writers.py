"""A program that starts two processes at one folder, round after round: see test_two_writers.py.

Forks before TensorFlow has begun any work, so that a round costs no imports.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from kit import locks
from kit.files import hash_file
from kit.prep import demo
from tests.killed_run import write as prepare_shards
from tests.small_training import compiled, train


def preparation(source, folder):
    prepare_shards(source, folder)


def demonstration(source, folder):
    demo.make_demo(raw_dir=folder, demo_views=10, seed=0)


def training(source, folder):
    train(compiled(), source, folder, epochs=1, steps_per_epoch=2)


STAGES = {call.__name__: call for call in (preparation, demonstration, training)}


def start(stage, source, folder, go):
    """Fork a process that begins when the pipe `go` is closed; give it and what it says."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said = "done"
        os.close(go[1])
        os.read(go[0], 1)
        try:
            STAGES[stage](source, folder)
        except locks.InUse as error:
            said = str(error)
        except BaseException as error:
            said = f"failed: {type(error).__name__}: {error}"
        os.write(writer, said[:4000].encode())
        os._exit(0)
    os.close(writer)
    return child, reader


def race(stage, source, folder):
    """Give what each of two processes says that begin at once."""
    go = os.pipe()
    children = [start(stage, source, folder, go) for _ in range(2)]
    os.close(go[0])
    os.close(go[1])
    found = []
    for child, reader in children:
        with os.fdopen(reader) as pipe:
            found.append(pipe.read())
        os.waitpid(child, 0)
    return found


def hashes(folder):
    return {
        str(path.relative_to(folder)): hash_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".csv"  # it holds seconds
    }


def main(stage, source, scratch, rounds):
    """Print how often one was refused, and what was neither done nor refused, or differs."""
    counts, whole = {"rounds": rounds, "refused": 0, "wrong": [], "differ": []}, None
    for number in range(rounds):
        folder = scratch / str(number)
        found = race(stage, source, folder)
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
