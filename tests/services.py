"""A tf.data service in processes of its own, and what is read from it."""

import socket
import subprocess
import sys
import time

from kit import ROOT
from kit.pipeline import order, service


class Service:
    """A dispatcher and workers in processes of their own, as the command starts them."""

    def __init__(self, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"grpc://localhost:{self.port}"
        self.options = options
        self.processes = []
        self.dispatcher = self.start_dispatcher()
        self.workers = [self.start_worker(), self.start_worker()]
        for process in self.processes:
            self.await_ready(process)

    def start_dispatcher(self):
        return self.start("dispatcher", "--port", str(self.port), *self.options)

    def start_worker(self):
        return self.start("worker", "--dispatcher", self.address)

    def start(self, *words):
        command = [sys.executable, "-m", "kit", "data-service", *words]
        self.processes.append(
            subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        )
        return self.processes[-1]

    def await_ready(self, process):
        assert " ready at " in process.stdout.readline()
        assert "only this machine reaches it" in process.stdout.readline()

    def kill(self, process):
        process.kill()
        process.wait()

    def end(self):
        for process in self.processes:
            self.kill(process)
            process.stdout.close()


def positions(data_dir, data_service):
    """Give an iterator over batches of the positions of the images that would be decoded."""
    numbers = order.ordered_records(data_dir=data_dir, shuffle_shards=1, seed=0)
    numbers = numbers.map(lambda position, record: position).batch(4)
    return iter(service.distribute(numbers, data_service, data_dir=data_dir))


def read(iterator, until, patience=120):
    """Give the positions that are read `until` they suffice."""
    seen, end = [], time.monotonic() + patience
    while not until(seen):
        assert time.monotonic() < end, f"{len(seen)} images, then too long a wait"
        seen += next(iterator).numpy().tolist()
    return seen


def holds(wanted):
    return lambda seen: set(range(wanted)) <= set(seen)


def more(wanted):
    return lambda seen: len(seen) >= wanted
