"""Writes the shards on a Spark cluster: one task for each shard, committed by its rename.

So Spark may repeat a task, after the loss of a worker or speculatively. The workers need this
Python's packages, and must see raw_dir and data_dir under the same names. The kit itself is sent
to them.
"""

import os
import re
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from functools import partial
from pathlib import Path

import kit
from kit.prep import manifest_writer
from kit.prep.workers import single_thread

SECONDS_BETWEEN_LOOKS = 0.5  # at the finished shards' records, for progress
RAISED = re.compile(r"^(?:: )?[\w.]*(?:Error|Exception): (.+)$", re.MULTILINE)


def run_tasks(task, shards: list, *, folder, spark_master):
    """Yield the entry of each shard as soon as it is recorded as finished.

    spark_master: "spark://host:7077", or "local[2]" to try it without a cluster.
    Raises ModuleNotFoundError without PySpark, ChildProcessError with the line of what failed.
    """
    if not shards:
        return
    context = _start(spark_master)
    try:
        with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(1) as thread:
            root = Path(kit.__file__).parent.parent
            context.addPyFile(shutil.make_archive(f"{scratch}/kit", "zip", root, "kit"))
            tasks = context.parallelize(shards, len(shards))
            job = thread.submit(tasks.foreach, partial(_run_task, task))
            try:
                yield from _follow(job, {shard.name for shard in shards}, folder)
            finally:
                context.cancelAllJobs()
    finally:
        context.stop()


def _start(spark_master: str):
    try:
        from pyspark import SparkConf, SparkContext
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "spark_master needs PySpark: pip install 'resnet50-kit[spark]', and Java 17 or newer"
        ) from error
    settings = SparkConf().setMaster(spark_master).setAppName("resnet50-kit shards")
    settings.setIfMissing("spark.ui.enabled", "false")  # its web page listens to everyone
    settings.setIfMissing("spark.pyspark.python", os.environ.get("PYSPARK_PYTHON", sys.executable))
    try:
        return SparkContext(conf=settings)
    except Exception as error:  # Java's own, by way of py4j
        raise ChildProcessError(
            f"spark_master: {spark_master} gives no session ({_line(error)}): is Java 17 or newer "
            "installed, and the master's address right?"
        ) from None


def _run_task(task, shard) -> None:
    single_thread()
    task(shard)


def _follow(job, names: set[str], folder):
    """Yield the entries of the shards named, as they appear; the job's failure is raised."""
    while names:
        over = bool(wait_for([job], SECONDS_BETWEEN_LOOKS).done)
        for entry in manifest_writer.recorded(folder, names):
            names.remove(entry["name"])
            yield entry
        if over and (error := job.exception()):
            raise ChildProcessError(f"a Spark task failed: {_line(error)}") from None


def _line(error: Exception) -> str:
    """Give the line that says what went wrong, out of Spark's hundred."""
    text = str(error)
    found = RAISED.findall(text)  # Java's own, then Python's where it is Python that failed
    return found[-1] if found else text.strip().partition("\n")[0] or type(error).__name__
