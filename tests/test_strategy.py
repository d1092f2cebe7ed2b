import subprocess
import sys

import tensorflow as tf

from kit.training.strategy import make_strategy


def test_a_cpu_trains_under_mirrored_strategy():
    strategy = make_strategy(replicas=0)
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == 1


def test_logical_cpus_are_replicas():
    strategy = make_strategy(replicas=2)
    assert strategy.num_replicas_in_sync == 2
    ones = strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("sum", tf.ones([])))
    assert [float(one) for one in strategy.experimental_local_results(ones)] == [2.0, 2.0]


def test_replicas_after_tensorflow_has_started_are_refused_with_the_remedy():
    code = (
        "import tensorflow as tf; from kit.training.strategy import make_strategy\n"
        "tf.zeros([])\n"
        "try: make_strategy(replicas=2)\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("replicas: 2 logical CPUs asked for after TensorFlow has started")
    assert "restart the kernel" in done.stdout


def test_one_process_has_one_strategy_for_the_same_devices():
    assert make_strategy(replicas=2) is make_strategy(replicas=2)
