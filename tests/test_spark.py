"""Shards from a real standalone cluster on loopback: a master, two workers, one of them killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from images import class_folders, jpeg
from test_writer import contents, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java 17: none on PATH"),
]
SHARDS = {"train_shards": 40, "validation_shards": 8}


@pytest.fixture(scope="module")
def raw_dir(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("spark") / "raw", classes=3, images=80)


@pytest.fixture
def on_loopback(monkeypatch):
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def answers(port):
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def cluster(tmp_path, on_loopback):
    """Give the address of the master and the processes of its two workers; ends all of them."""
    import pyspark

    home = Path(pyspark.__file__).parent
    environment = os.environ | {"SPARK_HOME": str(home), "SPARK_NO_DAEMONIZE": "1"}
    environment |= {"SPARK_DAEMON_JAVA_OPTS": "-Dspark.ui.enabled=false", "PYTHONPATH": ""}
    port = free_port()
    started = []

    def start(role, *words):
        log = (tmp_path / f"{role}{len(started)}.log").open("w")
        name = f"org.apache.spark.deploy.{role.lower()}.{role}"
        common = [home / "bin/spark-class", name, "--host", "127.0.0.1", "--webui-port", "0"]
        started.append(
            subprocess.Popen(
                [*common, *words],
                env=environment,
                cwd=tmp_path,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )

    start("Master", "--port", str(port))
    deadline = time.monotonic() + 120
    while not answers(port) and time.monotonic() < deadline:
        time.sleep(0.3)
    for number in (1, 2):
        folder = ["--work-dir", str(tmp_path / f"work{number}")]
        start("Worker", "--cores", "1", "--memory", "1g", *folder, f"spark://127.0.0.1:{port}")
    yield f"spark://127.0.0.1:{port}", started[1:]
    for process in started:
        kill_group(process)


def kill_group(process):
    """Kill the process and those that it started: a worker's executor, too."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def test_cluster_that_loses_a_worker_writes_what_one_machine_writes(raw_dir, cluster, tmp_path):
    address, workers = cluster
    seen = []

    def progress(tasks, total):
        for shard in tasks:
            seen.append(shard["name"])
            if len(seen) == 1:
                kill_group(workers[0])
            yield shard

    write(raw_dir, tmp_path / "spark", **SHARDS, spark_master=address, progress=progress)
    write(raw_dir, tmp_path / "local", **SHARDS)
    assert len(set(seen)) == len(seen) == 48
    assert workers[0].poll() is not None
    assert contents(tmp_path / "spark") == contents(tmp_path / "local")


def test_cluster_writes_only_what_is_missing(raw_dir, on_loopback, tmp_path):
    """And says in one line which image stopped it."""

    def interrupt(tasks, total):
        yield next(tasks)
        raise KeyboardInterrupt

    data_dir = tmp_path / "shards"
    with pytest.raises(KeyboardInterrupt):
        write(raw_dir, data_dir, progress=interrupt)
    seen = []

    def progress(tasks, total):
        seen.append(total)
        return tasks

    write(raw_dir, data_dir, spark_master="local[1]", progress=progress)
    assert seen == [2]
    write(raw_dir, tmp_path / "local")
    assert contents(data_dir) == contents(tmp_path / "local")


def test_failed_task_is_told_in_one_line(on_loopback, tmp_path):
    raw_dir = class_folders(tmp_path / "raw" / "train", classes=2, images=2).parent
    class_folders(raw_dir / "validation", classes=2, images=1)
    (raw_dir / "bounding_boxes/class0").mkdir(parents=True)
    (raw_dir / "bounding_boxes/class0/0_1.xml").write_text("<annotation>")
    with pytest.raises(ChildProcessError, match=r"0_1.xml cannot be read .*: correct") as told:
        write(raw_dir, tmp_path / "shards", spark_master="local[1]")
    assert "\n" not in str(told.value)


def test_address_without_a_master_is_told_in_one_line(on_loopback, tmp_path):
    raw_dir = class_folders(tmp_path / "raw", classes=2, images=3)
    (raw_dir / "class0/one.jpg").write_bytes(jpeg(8, 8))
    with pytest.raises(ChildProcessError, match="spark_master: nonsense gives no session") as told:
        write(raw_dir, tmp_path / "shards", spark_master="nonsense", train_shards=1)
    assert "\n" not in str(told.value)
