"""What is lost when parts of a tf.data service are killed, or hang."""

import signal
import time
from collections import Counter

import pytest
import tensorflow as tf
from images import make_shards
from services import Service, more, positions, read

from kit.pipeline import service

IMAGES, SHARDS = 48, 12
GROUP = IMAGES // SHARDS  # shuffle_shards is 1
HELD = 16 * GROUP  # more than a worker holds of such small groups

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return make_shards(root, classes=3, images=24, train_shards=SHARDS)


@pytest.fixture
def fresh():
    """Give a function that starts a service which this test may kill parts of."""
    started = []

    def start(*options):
        started.append(Service(*options))
        return started[-1]

    yield start
    for found in started:
        found.end()


def test_training_goes_on_when_a_worker_is_killed(data_dir, fresh):
    """What it held is lost, some groups; none comes twice. A worker that joins takes part."""
    cluster = fresh()
    iterator = positions(data_dir, cluster.address)
    seen = read(iterator, more(10 * IMAGES))
    cluster.kill(cluster.workers[0])
    began = time.monotonic()
    seen += read(iterator, more(1))
    assert time.monotonic() - began < 5
    seen += read(iterator, more(10 * IMAGES))
    cluster.await_ready(cluster.start_worker())
    seen += read(iterator, lambda seen: len(seen) > IMAGES and seen != sorted(seen))
    assert max(Counter(seen).values()) == 1
    lost = set(range(max(seen) - HELD)) - set(seen)  # what came last may be on its way
    assert GROUP <= len(lost) <= HELD


def test_with_a_work_dir_a_restarted_dispatcher_goes_on(data_dir, fresh, tmp_path):
    """Nothing is lost and nothing comes twice."""
    cluster = fresh("--work-dir", str(tmp_path))
    iterator = positions(data_dir, cluster.address)
    seen = read(iterator, more(5 * IMAGES))
    cluster.kill(cluster.dispatcher)
    cluster.await_ready(cluster.start_dispatcher())
    seen += read(iterator, more(20 * IMAGES))
    assert max(Counter(seen).values()) == 1
    assert set(range(max(seen) - HELD)) <= set(seen)


def test_without_one_a_restarted_dispatcher_ends_the_training(data_dir, fresh):
    cluster = fresh()
    iterator = positions(data_dir, cluster.address)
    next(iterator)
    cluster.kill(cluster.dispatcher)
    cluster.await_ready(cluster.start_dispatcher())
    with pytest.raises(tf.errors.NotFoundError, match="restart|not found"):
        read(iterator, more(10**9))


def test_a_worker_that_hangs_is_said_before_training(fresh):
    cluster = fresh()
    cluster.workers[0].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(ConnectionError, match=r"worker localhost:\d+ .* does not answer; end it"):
        service.check(cluster.address)
    assert time.monotonic() - began < 15
