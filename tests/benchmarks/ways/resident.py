"""How much memory the pipeline holds over some minutes, against a bound stated beforehand."""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

GIB = 2**30
BATCHES = 6  # waiting, being filled, given out; decoded


def run(data, minutes) -> tuple[float, float]:
    """Give peak and bound, GiB, of a fresh process that takes batches of TrainingData so long."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(watch, data, minutes).result()


def watch(data, minutes) -> tuple[float, float]:
    """Take batches, with a pause now and then as validation makes, in which buffers fill.

    The bound: what the process holds before, two groups of shards and a quarter, batches.
    """
    from kit.data import manifest

    shards = manifest.read_manifest(data.data_dir)["splits"]["train"]["shards"]
    group = data.reading.shuffle_shards * max(shard["bytes"] for shard in shards)
    batch = data.batch_size * data.image_size**2 * 3
    bound = resident() + 2.25 * group + BATCHES * batch
    peak, end, step = 0, time.monotonic() + 60 * minutes, 0
    batches = iter(data.batches())
    while time.monotonic() < end:
        next(batches)
        step += 1
        if step % 200 == 0:
            time.sleep(3)
        peak = max(peak, resident())
    return peak / GIB, bound / GIB


def resident() -> int:
    """Give the bytes of this process that are in memory (Linux)."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
