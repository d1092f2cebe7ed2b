"""Several hosts, played by processes on loopback, against one process with as many replicas."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

from kit import ROOT
from tests.images import make_shards

pytestmark = pytest.mark.slow
TIMED = {"images_per_second", "input_wait"}
SHORT = {"steps_per_epoch": 4}
LONG = {"epochs": 2, "steps_per_epoch": 40, "checkpoint_minutes": 0.001}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """39 training images, which no batch of 12 divides, and 21 for validation."""
    root = tmp_path_factory.mktemp("data")
    return make_shards(root, classes=3, images=20, train_shards=4, validation_shards=2)


@pytest.fixture(scope="module")
def long_run(data_dir, tmp_path_factory):
    """What one process finds in the training LONG, with two replicas."""
    return train(1, data_dir, tmp_path_factory.mktemp("long"), replicas=2, **LONG)[0]


def environments(count):
    """Give the environment of each host, with ports that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("TF_CONFIG", "SLURM_"))}
    tasks = [{"type": "worker", "index": index} for index in range(count)]
    configs = [{"cluster": {"worker": addresses}, "task": task} for task in tasks]
    hosts = [plain | {"TF_CONFIG": json.dumps(config)} for config in configs]
    return hosts if count > 1 else [plain]


@contextmanager
def started(count, *command):
    """Start the command on each host; what still runs at the end is killed."""
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [
        subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=each, **pipe)
        for each in environments(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def training(count, data_dir, run_dir, **changes):
    run_dir.mkdir(parents=True, exist_ok=True)
    return started(count, "tests.host_training", data_dir, run_dir, json.dumps(changes))


def finished(processes, seconds=240):
    """Wait for all; give what each said, and check that none failed."""
    said = [process.communicate(timeout=seconds)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def train(count, data_dir, run_dir, **changes):
    """Train to the end; give what each host found."""
    with training(count, data_dir, run_dir, **changes) as processes:
        finished(processes)
    return [json.loads((run_dir / f"host{n}.json").read_text()) for n in range(count)]


def wait_for_step(run_dir, step, seconds=120):
    end = time.monotonic() + seconds
    path = run_dir / "host0.step"
    while not (path.exists() and int(path.read_text() or 0) >= step):
        assert time.monotonic() < end, f"no step {step} after {seconds} s"
        time.sleep(0.05)


def assert_same(hosts, one):
    """All hosts end with the same weights, to the bit, and with those and the history of one."""
    for host in hosts:
        assert host["weights"] == hosts[0]["weights"]
        for value, expected in zip(host["weights"], one["weights"], strict=True):
            largest = max(1, np.abs(expected).max())
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-5 * largest)
        assert host["history"].keys() == one["history"].keys()
        for name in one["history"].keys() - TIMED:
            np.testing.assert_allclose(
                host["history"][name], one["history"][name], rtol=1e-5, atol=1e-5, err_msg=name
            )


@pytest.mark.parametrize(
    ("count", "batch_norm", "replicas"),
    [(2, "per_replica", 2), (3, "per_replica", 3), (2, "synchronized", 1)],
)
def test_hosts_train_as_one_process(data_dir, tmp_path, count, batch_norm, replicas):
    """Each host's own statistics are those of a replica; synchronized ones know no replicas."""
    short = SHORT | {"batch_norm": batch_norm}
    hosts = train(count, data_dir, tmp_path / "hosts", **short)
    [one] = train(1, data_dir, tmp_path / "one", replicas=replicas, **short)
    assert_same(hosts, one)
    assert_each_image_once(hosts, one)
    first, *others = hosts
    assert {"checkpoints", "history.csv"} <= set(first["wrote"])
    assert not any(Path(other["own"]).exists() for other in others)  # temporary folders


def assert_each_image_once(hosts, one):
    """The hosts' parts of a batch, in their order, are the batch; none is validated twice."""
    for step, names in one["trained"]:
        assert sum((host["trained"][step - 1][1] for host in hosts), []) == names
    validated = [name for host in hosts for batch in host["validated"] for name in batch]
    assert len(validated) == 21
    assert sorted(validated) == sorted(name for batch in one["validated"] for name in batch)


def test_a_kill_of_all_hosts_is_resumed(data_dir, tmp_path, long_run):
    cut = tmp_path / "cut"
    with training(2, data_dir, cut, **LONG) as processes:
        wait_for_step(cut, 50)
        for process in processes:
            process.kill()
    hosts = train(2, data_dir, cut, **LONG)
    assert hosts[0]["trained"][0][0] > 30  # it did not begin anew
    assert_same(hosts, long_run)


@pytest.mark.parametrize(
    ("count", "victim", "number"), [(2, 0, "SIGKILL"), (3, 1, "SIGKILL"), (2, 1, "SIGSTOP")]
)
def test_the_others_stop_when_a_host_is_lost(data_dir, tmp_path, long_run, count, victim, number):
    """A killed host, and one that hangs; started again, the training ends as if none had been."""
    run_dir = tmp_path / "run"
    with training(count, data_dir, run_dir, **LONG) as processes:
        wait_for_step(run_dir, 50)
        processes[victim].send_signal(getattr(signal, number))
        lost = time.monotonic()
        others = [process for process in processes if process is not processes[victim]]
        said = [process.communicate(timeout=60)[0] for process in others]
        print(f"\n{number} of host {victim} of {count}: {time.monotonic() - lost:.1f} s")
    for process, text in zip(others, said, strict=True):
        assert process.returncode == 1, text
        assert re.search(r"HostLost: lost 127\.0\.0\.1:\d+.* from the last checkpoint", text), text
    if count == 2:
        assert_same(train(count, data_dir, run_dir, **LONG), long_run)


def test_one_host_asked_to_end_ends_all_with_a_save(data_dir, tmp_path, long_run):
    run_dir = tmp_path / "run"
    with training(2, data_dir, run_dir, **LONG | {"checkpoint_minutes": 0.0}) as processes:
        wait_for_step(run_dir, 42)
        processes[1].terminate()
        said = [process.communicate(timeout=60)[0] for process in processes]
    steps = [re.search(r"Preempted: SIGTERM: saved after step (\d+)", text) for text in said]
    assert steps[0] and steps[1], said
    assert steps[0][1] == steps[1][1]
    hosts = train(2, data_dir, run_dir, **LONG)
    assert hosts[0]["trained"][0][0] == int(steps[0][1]) + 1
    assert_same(hosts, long_run)


def test_the_command_runs_on_two_hosts(data_dir, tmp_path):
    """Each host executes notebook 02; the first leaves a run, the other its executed notebook."""
    run_dir = tmp_path / "run"
    values = {"data_dir": data_dir, "run_dir": run_dir, "image_size": 32, "resize_side": 36}
    values |= {"batch_size": 6, "epochs": 1, "steps_per_epoch": 2, "batch_norm_momentum": 0.5}
    values |= {"decay_epochs": []}
    arguments = [text for pair in values.items() for text in ("-p", *map(str, pair))]
    with started(2, "kit", "run", "--only", "02,03", *arguments) as processes:
        said = finished(processes, seconds=400)
    assert "report:" in said[0]
    assert "2: evaluation" in said[0] and "2: evaluation" not in said[1]
    assert json.loads((run_dir / "evaluation.json").read_text())["images"] == 21
    made = {path.name for path in run_dir.iterdir()}
    assert {"model.keras", "history.csv", "logs", "figures", "params.json", "host-1"} <= made
    other = {path.name for path in (run_dir / "host-1").iterdir()}
    assert other == {"notebooks", "params.json", "environment.json", "report.html"}
