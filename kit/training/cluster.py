"""The hosts that train together, from TF_CONFIG or SLURM's variables; imports no TensorFlow."""

import atexit
import itertools
import os
import re
import socket
import tempfile
import time
from typing import NamedTuple

from kit.files import json_object

FORM = (
    '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


class HostLost(Exception):
    """Another host has stopped or cannot be reached, so this one cannot continue."""


class Hosts(NamedTuple):
    """The addresses "name:port" of all hosts, in the same order on each, and this one's number.

    A host that trains alone has no address and is number 0.
    """

    addresses: tuple = ()
    number: int = 0

    @property
    def count(self):
        return len(self.addresses) or 1

    def own_dir(self, run_dir):
        """Return the folder to write to: `run_dir` on the first host, a temporary one on others.

        A temporary folder is removed when the process ends.
        """
        if self.number == 0:
            return run_dir
        temporary = tempfile.TemporaryDirectory(prefix=f"kit-host{self.number}-")
        atexit.register(temporary.cleanup)
        return temporary.name

    def wait(self, *, minutes):
        """Wait until every other host has started: until something listens at its address.

        TensorFlow itself waits an hour without naming the host that is missing. Raises ValueError
        when this host's port is in use, or when another host does not start in time.
        """
        deadline = time.monotonic() + 60 * minutes
        own = self.addresses[self.number]
        try:
            listening = socket.create_server(("", int(own.rpartition(":")[2])))
        except OSError as error:
            raise ValueError(
                f"{own}: cannot listen there ({error.strerror}); is an earlier training still "
                "running? end it, or take another port"
            ) from None
        with listening:
            for address in set(self.addresses) - {own}:
                _reach(address, deadline)


def find(environment=os.environ):
    """Return the Hosts of TF_CONFIG, or else of SLURM's variables for a step of several tasks.

    Raises ValueError, with the remedy, for values that are wrong or incomplete.
    """
    if environment.get("TF_CONFIG"):
        return _from_tf_config(environment["TF_CONFIG"])
    if int(environment.get("SLURM_STEP_NUM_TASKS") or 1) > 1:
        return _from_slurm(environment)
    return Hosts()


def _reach(address, deadline):
    name, _, port = address.rpartition(":")
    while True:
        try:
            return socket.create_connection((name, int(port)), timeout=5).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise ValueError(
                    f"{address}: this host did not come ({error}); start all of them within "
                    "minutes of each other, and let them reach this port"
                ) from None
            time.sleep(0.2)


def _from_tf_config(text):
    try:
        config = json_object(text.encode())
        cluster, task = config.get("cluster", {}), config.get("task", {})
        groups = {kind: list(cluster.get(kind, [])) for kind in ("chief", "worker")}
    except (ValueError, AttributeError, TypeError):
        raise ValueError(f"TF_CONFIG: {text!r} has not the form {FORM}") from None
    addresses = tuple(groups["chief"] + groups["worker"])
    if len(addresses) < 2:
        return Hosts()
    for address in addresses:
        if not re.fullmatch(r".+:\d+", str(address)):
            raise ValueError(f"TF_CONFIG: {address!r} is no address; write host:port")
    if len(set(addresses)) < len(addresses):
        raise ValueError(f"TF_CONFIG: an address stands twice in {', '.join(addresses)}")
    kind, index = task.get("type"), task.get("index")
    if kind not in groups or index not in range(len(groups[kind])):
        raise ValueError(
            f"TF_CONFIG: its task is {task}, and its cluster has {len(groups['chief'])} chief and "
            f"{len(groups['worker'])} worker; give each host one of those, counted from 0"
        )
    return Hosts(addresses, index + (len(groups["chief"]) if kind == "worker" else 0))


def _from_slurm(environment):
    """Read the variables that srun sets for each task; the port follows from the job's number.

    TensorFlow's SlurmClusterResolver sorts the names of the hosts as text, node10 before node9,
    where srun numbers its tasks in the list's order; and it needs nvidia-smi.
    """
    tasks = int(environment["SLURM_STEP_NUM_TASKS"])
    try:
        names = expand_names(environment["SLURM_STEP_NODELIST"])
        number, job = int(environment["SLURM_PROCID"]), int(environment["SLURM_JOB_ID"])
    except KeyError as error:
        raise ValueError(
            f"SLURM_STEP_NUM_TASKS is {tasks} and {error.args[0]} is not set; start with srun, or "
            "unset it to train on this host alone"
        ) from None
    if len(names) != tasks:
        raise ValueError(
            f"SLURM_STEP_NUM_TASKS: {tasks} tasks on {len(names)} hosts; start one on each, which "
            "takes all its GPUs: srun --ntasks-per-node=1"
        )
    # above the ports that Linux assigns by itself, so that none of those can be in use here
    return Hosts(tuple(f"{name}:{61440 + job % 4096}" for name in names), number)


def expand_names(nodes):
    """List the names in SLURM's short form: "a[01-02,7],b" stands for a01, a02, a7 and b."""
    names = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        pieces = [
            _numbers(inside) if inside else [outside]
            for inside, outside in re.findall(r"\[([^\]]*)\]|([^\[]+)", part)
        ]
        names += map("".join, itertools.product(*pieces))
    return names


def _numbers(ranges):
    numbers = []
    for item in ranges.split(","):
        first, _, last = item.partition("-")
        numbers += [
            str(number).zfill(len(first)) for number in range(int(first), int(last or first) + 1)
        ]
    return numbers
