import json
import socket
import threading
from pathlib import Path

import pytest

from kit.training import cluster

ADDRESSES = ["alpha:12345", "beta:12345", "gamma:12345"]
STEP = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "node[8-10],login",
    "SLURM_PROCID": "2",
    "SLURM_JOB_ID": "4099",
}


def configuration(addresses, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": addresses, "task": {"type": kind, "index": index}})}


def test_a_host_that_is_told_nothing_trains_alone():
    for environment in ({}, {"TF_CONFIG": "{}"}, {"SLURM_STEP_NUM_TASKS": "1"}):
        alone = cluster.find(environment)
        assert (alone.count, alone.number) == (1, 0)
    assert cluster.find(configuration({"worker": ADDRESSES[:1]})).count == 1


def test_sbatch_without_srun_is_one_host():
    batch = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}
    assert cluster.find(batch).count == 1


def test_tf_config_names_the_hosts():
    found = cluster.find(configuration({"worker": ADDRESSES}, index=2))
    assert (found.addresses, found.number, found.count) == (tuple(ADDRESSES), 2, 3)


def test_a_chief_is_the_first_host():
    both = {"chief": ADDRESSES[:1], "worker": ADDRESSES[1:]}
    assert cluster.find(configuration(both, "chief")).number == 0
    assert cluster.find(configuration(both, "worker", 1)).number == 2
    assert cluster.find(configuration(both, "worker", 1)).addresses == tuple(ADDRESSES)


def test_slurm_names_the_hosts_in_the_order_of_its_tasks():
    """The port is 61440 + 4099 % 4096; as text, node10 would come before node8."""
    found = cluster.find(STEP)
    assert found.number == 2
    assert found.addresses == ("node8:61443", "node9:61443", "node10:61443", "login:61443")


def test_tf_config_goes_before_slurm():
    assert cluster.find(STEP | configuration({"worker": ADDRESSES})).addresses == tuple(ADDRESSES)


@pytest.mark.parametrize(
    ("nodes", "names"),
    [
        ("a", ["a"]),
        ("a,b[1-3]", ["a", "b1", "b2", "b3"]),
        ("n[008-010,3]", ["n008", "n009", "n010", "n3"]),
        ("r[1-2]n[1-2]x", ["r1n1x", "r1n2x", "r2n1x", "r2n2x"]),
    ],
)
def test_slurms_short_form_of_names_is_expanded(nodes, names):
    assert cluster.expand_names(nodes) == names


def without(name):
    return {key: value for key, value in STEP.items() if key != name}


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"TF_CONFIG": "{cluster"}, "has not the form"),
        ({"TF_CONFIG": "[1]"}, "has not the form"),
        ({"TF_CONFIG": "[" * 3000}, "has not the form"),
        (configuration({"worker": ["alpha", "beta:1"]}), "'alpha' is no address"),
        (configuration({"worker": ["alpha:1", "alpha:1"]}), "stands twice"),
        (configuration({"worker": ADDRESSES}, index=3), "0 chief and 3 worker"),
        (configuration({"worker": ADDRESSES}, "ps"), "0 chief and 3 worker"),
        ({"TF_CONFIG": json.dumps({"cluster": {"worker": ADDRESSES}})}, "its task is {}"),
        (without("SLURM_PROCID"), "SLURM_PROCID is not set; start with srun"),
        (without("SLURM_STEP_NODELIST"), "SLURM_STEP_NODELIST is not set"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "8"}, "--ntasks-per-node=1"),
    ],
)
def test_half_a_configuration_is_refused_in_one_line(environment, words):
    with pytest.raises(ValueError, match="TF_CONFIG|SLURM") as error:
        cluster.find(environment)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_only_the_first_host_writes_to_run_dir(tmp_path):
    assert cluster.Hosts(tuple(ADDRESSES), 0).own_dir(tmp_path) == tmp_path
    other = cluster.Hosts(tuple(ADDRESSES), 1).own_dir(tmp_path)
    assert Path(other).is_dir() and Path(other) != tmp_path
    assert list(tmp_path.iterdir()) == []


def free_addresses(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = tuple(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()
    return addresses


def test_hosts_wait_for_each_other():
    """A host that has seen the others goes on, and TensorFlow then listens in its place."""
    addresses = free_addresses(3)
    servers = []

    def start(number):
        cluster.Hosts(addresses, number).wait(minutes=0.5)
        servers.append(socket.create_server(("", int(addresses[number].split(":")[1]))))

    threads = [threading.Thread(target=start, args=[number]) for number in range(3)]
    for thread in threads[:2]:
        thread.start()
    threads[0].join(0.5)
    assert not servers
    threads[2].start()
    for thread in threads:
        thread.join()
    assert len(servers) == 3
    for server in servers:
        server.close()


def test_a_host_that_does_not_come_is_named():
    addresses = free_addresses(2)
    with pytest.raises(ValueError, match=f"{addresses[1]}: this host did not come"):
        cluster.Hosts(addresses, 0).wait(minutes=0.01)


def test_a_taken_port_is_named():
    with socket.create_server(("", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"{address}: cannot listen there"):
            cluster.Hosts((address, "127.0.0.1:1"), 0).wait(minutes=0.01)
