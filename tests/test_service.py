"""A real dispatcher and two workers, in processes on loopback; see test_service_kill.py."""

import http.server
import signal
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
import tensorflow as tf
from images import make_shards
from services import Service, holds, positions, read

import kit.__main__
from kit.pipeline import service
from tests.networks import compile_model, training_data

IMAGES, SHARDS = 48, 12
BATCH = 4


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return make_shards(root, classes=3, images=24, train_shards=SHARDS)


@pytest.fixture(scope="module")
def data_service():
    service_processes = Service()
    yield service_processes.address
    service_processes.end()


def batches(data_dir, data_service="", start_step=0, **changes):
    settings = {"batch_size": BATCH, "image_size": 32, "shuffle_shards": 1}
    settings |= {"data_service": data_service, "deterministic": not data_service}
    return training_data(data_dir, **settings | changes).batches(start_step)


def test_two_workers_give_each_image_of_each_pass_once(data_dir, data_service):
    both = lambda seen: holds(2 * IMAGES)(seen) and seen != sorted(seen)  # noqa: E731
    seen = read(positions(data_dir, data_service), both)
    assert max(Counter(seen).values()) == 1


def test_a_new_trainer_is_dealt_all_from_the_start(data_dir, data_service):
    for _ in range(2):
        read(positions(data_dir, data_service), holds(IMAGES))


def places(data_dir, passes):
    """Map each decoded crop of the passes to its position in the order without a service."""
    found = {}
    for images, _ in batches(data_dir).take(passes * IMAGES // BATCH):
        for image in images.numpy():
            found[image.tobytes()] = len(found)
    assert len(found) == passes * IMAGES
    return found


def places_given(made, known, wanted):
    """Give the positions of the crops, up to where all those `wanted` have come."""
    seen = []
    for images, _ in made:
        seen += [known.get(image.tobytes(), -1) for image in images.numpy()]
        if set(wanted) <= set(seen):
            return [place for place in seen if place >= 0]
    return None


def test_the_crops_are_those_made_without_a_service(data_dir, data_service):
    seen = places_given(batches(data_dir, data_service), places(data_dir, 2), range(IMAGES))
    assert max(Counter(seen).values()) == 1


def test_each_host_gets_its_own_slices(data_dir, data_service):
    known = places(data_dir, passes=2)
    for worker in (0, 1):
        ours = [place for place in range(IMAGES) if place % 4 // 2 == worker]
        share = batches(data_dir, data_service, worker=worker, workers=2)
        assert {place % 4 // 2 for place in places_given(share, known, ours)} == {worker}


def test_a_later_start_leaves_out_what_stands_before_it(data_dir, data_service):
    later = batches(data_dir, data_service, start_step=5, batch_size=5)
    assert min(places_given(later, places(data_dir, 2), range(25, IMAGES))) == 25


def test_two_replicas_train_from_it(data_dir, data_service, two_replicas):
    model = compile_model(two_replicas, classes=3, width=4, stage_sizes=(1, 1))
    history = model.fit(batches(data_dir, data_service), steps_per_epoch=3, verbose=0)
    assert history.history["loss"][0] > 0


def test_a_deterministic_order_is_refused(data_dir, data_service):
    data = training_data(data_dir, data_service=data_service)
    with pytest.raises(ValueError, match="deterministic: false, or data_service"):
        replace(data, deterministic=True)


@pytest.mark.parametrize(
    "url", ["localhost:5050", "http://localhost:5050", "grpc://localhost", "x"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValueError, match="write grpc://host:port"):
        service.check(url)


def test_an_unreachable_dispatcher_is_said_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        url = f"grpc://localhost:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ConnectionError, match=f"no dispatcher answers at {url} .*start one"):
            service.check(url)
        assert time.monotonic() - began < 10


def test_a_worker_or_another_program_is_no_dispatcher(data_service):
    (worker, *_) = service.check(data_service)
    with pytest.raises(ConnectionError, match="another program does"):
        service.check(f"grpc://{worker}")
    handler = http.server.BaseHTTPRequestHandler
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever).start()
        with pytest.raises(ConnectionError, match="no dispatcher answers"):
            service.check(f"grpc://localhost:{web.server_port}")
        web.shutdown()


def test_a_dispatcher_without_living_workers_is_said():
    dispatcher, _ = service.dispatcher(port=0, host="localhost", work_dir="")
    with pytest.raises(ConnectionError, match="workers I found none; start one"):
        service.check(dispatcher.target)
    worker, _ = service.worker(dispatcher=dispatcher.target, port=0, host="localhost")
    assert len(service.check(dispatcher.target)) == 1
    worker.stop()
    with pytest.raises(ConnectionError, match="only localhost:.* which cannot be reached"):
        service.check(dispatcher.target)
    dispatcher.stop()


def test_shards_that_a_worker_does_not_see_are_said(tmp_path, data_service):
    empty = tf.data.Dataset.range(3)
    with pytest.raises(FileNotFoundError, match=r"worker localhost:\d+ of .* cannot read"):
        service.distribute(empty, data_service, data_dir=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux binds a socket to a device")
def test_only_this_machine_reaches_the_servers_unless_asked():
    for host, device in (("localhost", b"lo"), ("example.org", b"")):
        server, lines = service.dispatcher(port=0, host=host, work_dir="")
        port = int(server.target.rpartition(":")[2])
        assert lines[0] == f"dispatcher ready at grpc://{host}:{port}"
        assert ("only this machine" in lines[1]) == (host == "localhost")
        found = [
            listener.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0")
            for listener in service._sockets()
            if listener.getsockname()[1] == port
        ]
        assert set(found) == {device}
        server.stop()


def test_a_taken_port_is_said():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionError, match=f"cannot listen on port {port}; choose another"):
            service.dispatcher(port=port, host="localhost", work_dir="")


def test_the_command_refuses_a_wrong_address_in_one_line(monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # the command sets both for its process
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    assert kit.__main__.main(["data-service", "worker", "--dispatcher", "host:1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: data_service: "host:1" is no address')
