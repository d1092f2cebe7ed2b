import os
import signal
import subprocess

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# PyTorch's threads spin while they wait: on two cores two test processes with two threads each
# took five times as long for a step as with one
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import pytest
import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops
from tensorflow.python.framework.config import disable_op_determinism

from kit.training.strategy import logical_cpus, make_strategy

# a shell's background job ignores Ctrl-C, and so would all that the tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
logical_cpus(2)  # two logical CPUs stand in for two GPUs; TensorFlow fixes their number once
device_dataset = multi_device_iterator_ops._create_device_dataset


def untuned(*arguments):
    """Give what hands batches to a replica, without the thread that would tune it.

    The garbage collector waits for that thread's nap, up to a minute: kit.pipeline.dataset.options.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return device_dataset(*arguments).with_options(options)


multi_device_iterator_ops._create_device_dataset = untuned


@pytest.fixture
def two_replicas():
    return make_strategy(replicas=2)


@pytest.fixture
def one_replica():
    return make_strategy(replicas=1)


@pytest.fixture(autouse=True)
def defaults_again():
    yield
    keras.config.set_dtype_policy("float32")
    disable_op_determinism()  # TensorFlow shows no public way back; Keras forbids XLA under it


@pytest.fixture
def small_disk(tmp_path):
    """Give a file system of 4 MB; mounting it needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]
    if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", disk], check=True)
