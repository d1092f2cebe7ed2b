"""Runs tasks in several processes of this machine."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import tensorflow as tf


def run_tasks(task, items: list, *, processes) -> Iterator:
    """Yield task(item) of each item as it is done; closing the iterator cancels the rest.

    processes: 1 does the work in this one. Whatever a task raises ends the run; raises
    ChildProcessError when a process dies.
    """
    processes = min(processes, len(items))
    if processes <= 1:
        yield from map(task, items)
        return
    spawn = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    pool = ProcessPoolExecutor(processes, mp_context=spawn, initializer=start_worker)
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


def single_thread() -> None:
    """Keep TensorFlow to one thread and off the GPU, whose memory each process would claim."""
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def start_worker() -> None:
    """Set a fresh process up for tasks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent says when to stop
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    single_thread()


def _end_with(parent) -> None:
    """Without it, workers of a killed parent would wait for tasks for ever."""
    parent.join()
    os._exit(1)
