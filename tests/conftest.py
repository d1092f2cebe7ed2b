import os
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest
from tensorflow.python.framework.config import disable_op_determinism

from kit.training.strategy import logical_cpus, make_strategy

# a shell's background job ignores Ctrl-C, and so would all that the tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
logical_cpus(2)  # two logical CPUs stand in for two GPUs; TensorFlow fixes their number once


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
