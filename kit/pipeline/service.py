"""Decode on other machines: TensorFlow's own tf.data service, a dispatcher and workers.

The dispatcher deals the numbers of the training groups (order.py), each to one worker, once and
without end: with a source that ends, the trainer would wait for a lost worker's part for ever. Each
trainer has a job of its own, without a name: by a shared name a resumed trainer would be dealt what
the old one's workers had left. Several hosts each decode their own slice of every group.
"""

import contextlib
import os
import re
import socket
import time
from pathlib import Path

import grpc  # TensorFlow's own dependency
import tensorflow as tf
from tensorflow.core.protobuf import service_config_pb2

from kit.data import manifest, storage

ADDRESS = re.compile(r"grpc://([^\s/]+:\d+)")
PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # that gRPC goes through
ANSWER_SECONDS = 5
START_SECONDS = 60  # that a worker waits for its dispatcher, which may be starting beside it
MAX_HASH = 2**62
START = "start one: python -m kit data-service"


def check(url):
    """Give the addresses of the workers that answer at the tf.data service at grpc://host:port.

    Raises ValueError for what is no address, ConnectionError when the dispatcher, or every worker
    of it, does not answer within seconds.
    """
    address = _address(url)
    try:
        listed = _ask(address, "DispatcherService/GetWorkers")
    except grpc.RpcError as error:
        raise ConnectionError(
            f"data_service: no dispatcher answers at {url} ({_why(error)}); {START} dispatcher"
        ) from None
    # GetWorkersResponse and WorkerInfo, which TensorFlow does not ship for Python, both hold the
    # wanted text in field 1, as BytesList does
    workers = [
        tf.train.BytesList.FromString(worker).value[0].decode()
        for worker in tf.train.BytesList.FromString(listed).value
    ]
    alive = [worker for worker in workers if _answers(worker)]
    if not alive:
        found = f"only {', '.join(workers)}, which cannot be reached" if workers else "none"
        raise ConnectionError(
            f"data_service: of {url}'s workers I found {found}; {START} worker "
            f"--dispatcher {url}, with --host where it is on another machine"
        )
    return alive


def distribute(batches, url, *, data_dir):
    """Have the batches made by the workers of the tf.data service at grpc://host:port.

    Each element of the dataset's source goes to one worker. Checks first that each worker that is
    there reads the same manifest under data_dir: FileNotFoundError or ValueError otherwise; and
    raises what `check` raises.
    """
    workers = check(url)
    _check_shards(data_dir, url, workers)
    policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
    return batches.apply(_through(url, policy)).prefetch(2)


def dispatcher(*, port, host, work_dir):
    """Start a dispatcher; gives the server, and lines that say where it is.

    host: the name under which others reach it; with "localhost" only this machine can. work_dir:
    a folder that this machine and every worker see, where it keeps what it has dealt, so that a
    restarted one goes on; "" for none.
    """
    config = service_config_pb2.DispatcherConfig(
        port=port,
        protocol="grpc",
        work_dir=str(Path(work_dir).resolve()) if work_dir else "",
        fault_tolerant_mode=bool(work_dir),
        gc_dynamic_sharding_jobs=True,  # or workers keep the groups of trainers that are gone
        job_gc_check_interval_ms=60_000,
    )
    server = _start(tf.data.experimental.service.DispatchServer, config, port)
    bound = int(server.target.rpartition(":")[2])
    return server, [f"dispatcher ready at grpc://{host}:{bound}", _reach(host, bound)]


def worker(*, dispatcher, port, host):
    """Start a worker; gives the server, and lines that say where it is.

    dispatcher: its address, grpc://host:port; it may be starting still. host: as above, what
    trainers call this machine. port: 0 for any that is free. Raises ConnectionError when the
    dispatcher does not answer within a minute.
    """
    address = _address(dispatcher)
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            _ask(address, "DispatcherService/GetVersion")
            break
        except grpc.RpcError as error:
            if time.monotonic() > end:
                raise ConnectionError(
                    f"--dispatcher: none answers at {dispatcher} ({_why(error)}); {START} "
                    "dispatcher, on another machine with --host"
                ) from None
        time.sleep(1)
    config = tf.data.experimental.service.WorkerConfig(
        dispatcher_address=address, worker_address=f"{host}:%port%", port=port, protocol="grpc"
    )
    server = _start(tf.data.experimental.service.WorkerServer, config, port)
    bound = int(server._address.rpartition(":")[2])
    return server, [f"worker ready at {host}:{bound}, of {dispatcher}", _reach(host, bound)]


def _address(url):
    found = ADDRESS.fullmatch(url)
    if not found:
        raise ValueError(f'data_service: "{url}" is no address; write grpc://host:port')
    return found[1]


def _through(url, policy):
    # uncompressed: snappy takes 15 % off images of 224 px, and doubles the trainer's work on them
    return tf.data.experimental.service.distribute(policy, url, compression=None)


def _ask(address, method):
    """Call a method of TensorFlow's servers with an empty request; gives the answer's bytes.

    TensorFlow's own client tries for ever; this raises grpc.RpcError after ANSWER_SECONDS.
    """
    with grpc.insecure_channel(address) as channel:
        return channel.unary_unary(f"/tensorflow.data.{method}")(b"", timeout=ANSWER_SECONDS)


def _why(error):
    text = {
        grpc.StatusCode.UNIMPLEMENTED: "another program does",
        grpc.StatusCode.DEADLINE_EXCEEDED: f"nothing within {ANSWER_SECONDS} s",
    }.get(error.code(), " ".join((error.details() or error.code().name).split())[-120:])
    proxies = [name for name in PROXIES if os.environ.get(name)]
    return text + (f"; {proxies[0]} is set: name the host in no_proxy" if proxies else "")


def _answers(worker):
    """Say whether the worker is there; a dispatcher never forgets one that has died.

    Raises ConnectionError for one that takes connections and does not answer: TensorFlow would
    wait for it without end before the first batch.
    """
    try:
        _ask(worker, "WorkerService/GetWorkerTasks")
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
            return False
        host, _, port = worker.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        except OSError:
            return False
        raise ConnectionError(
            f"data_service: worker {worker} takes connections and does not answer; end it"
        ) from None
    return True


def _check_shards(data_dir, url, workers):
    path = storage.folder(data_dir).path(manifest.MANIFEST)

    def fingerprint(_=None):
        return tf.strings.to_hash_bucket_fast(tf.io.read_file(path), MAX_HASH)

    everywhere = tf.data.experimental.service.ShardingPolicy.OFF
    each = tf.data.Dataset.range(1).map(fingerprint).apply(_through(url, everywhere))
    try:
        found = set(each.take(len(workers)).as_numpy_iterator())
    except tf.errors.OpError as error:
        said = re.search(r"from worker (\S+):", error.message)
        raise FileNotFoundError(
            f"data_dir: worker {said[1] if said else ''} of {url} cannot read {path}; "
            "every worker must see the shards under the same path"
        ) from None
    if found != {fingerprint().numpy()}:
        raise ValueError(
            f"data_dir: a worker of {url} has other shards at {path} than this machine; "
            "copy them anew, or mount the same folder"
        )


def _reach(host, port):
    """Confine a server of this process to this machine, unless it has a name for others.

    TensorFlow's servers listen on every address. Linux lets a listening socket be bound to the
    loopback device afterwards, also without privileges (since 5.7). Returns what to say of it.
    """
    if host != "localhost":
        return (
            f"port {port} is open to all who reach this machine, without password or encryption, "
            "and lets them read files here: keep it inside your cluster"
        )
    try:
        for opened in _sockets():
            with opened:
                if opened.getsockname()[1:2] == (port,):
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    except (OSError, AttributeError):  # an old Linux, or another system
        return f"this system cannot confine port {port} to this machine: close it in the firewall"
    return "only this machine reaches it; --host NAME opens it to others, under that name"


def _sockets():
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own, closed by now
            if str(entry.readlink()).startswith("socket:"):
                found = socket.socket(fileno=os.dup(int(entry.name)))
                if found.family in (socket.AF_INET, socket.AF_INET6):
                    yield found


def _start(server, config, port):
    try:
        return server(config)
    except (RuntimeError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())
        raise ConnectionError(f"cannot listen on port {port}; choose another ({reason})") from None
