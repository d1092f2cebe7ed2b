"""Runs tasks in several processes of this machine, which take turns with large images.

With images of any size all of them together take 1.2 GB at the most and 0.6 GB for each process,
most of it TensorFlow's; from Parquet also what a row group takes. On Spark each task takes that of
one process.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack

import tensorflow as tf

from kit.machine import cores

LARGE = 2**25  # pixels of an image, or bytes of its file
IMAGES_PER_WORKER = 5000  # a worker takes about as long to start as to read their headers

_turn = threading.RLock()  # of this process; `start_worker` puts one of all processes in its place


def run_tasks(task, items: list, *, processes, images=0) -> Iterator:
    """Yield task(item) of each item as it is done; closing the iterator cancels the rest.

    processes: 1 does the work in this one, 0 takes one per core, as far as so many `images` are
    worth their start. Whatever a task raises ends the run; raises ChildProcessError when a process
    dies.
    """
    processes = min(processes or min(cores(), 1 + images // IMAGES_PER_WORKER), len(items))
    if processes <= 1:
        yield from map(task, items)
        return
    spawn = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    pool = ProcessPoolExecutor(processes, spawn, start_worker, (spawn.RLock(),))
    try:
        for future in as_completed([pool.submit(task, item) for item in items]):
            yield future.result()
    except BrokenProcessPool:
        raise ChildProcessError(
            f"one of {processes} worker processes died, perhaps for lack of memory: lower "
            "processes; finished shards are kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def take_turn(until: ExitStack, size: int) -> None:
    """Wait, for a `size` over LARGE, until no other process has a large image; end with `until`."""
    if size > LARGE:
        until.enter_context(_turn)


def single_thread() -> None:
    """Keep TensorFlow to one thread and off the GPU, whose memory each process would claim."""
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def start_worker(turn=_turn) -> None:
    """Set a fresh process up for tasks; `turn` is the lock of all of them for large images."""
    global _turn
    _turn = turn
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent says when to stop
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    single_thread()


def _end_with(parent) -> None:
    """Without it, workers of a killed parent would wait for tasks for ever."""
    parent.join()
    os._exit(1)
