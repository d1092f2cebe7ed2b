"""How long an image takes, from its bytes to its probabilities, in each backend.

A backend is a pair (preprocess, forward): encoded bytes -> uint8 [size, size, 3], and uint8 [n,
size, size, 3] -> probabilities [n, classes].
"""

import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from kit.inference.classifier import Classifier
from kit.inference.formats import FORMATS, RUNTIMES, is_installed, load
from kit.machine import cores
from kit.model.folding import deployable

STAGES = ("decode_resize", "forward", "total")
PERCENTILES = (50, 90, 99)
TURN = 10  # images in a row; a runtime's threads still spin for a while when its turn is over
WARM_UP = 2  # untimed ones before them: the first of all also traces, allocates and chooses


def backends(run_dir):
    """Make every backend of the model of `run_dir` that can be had here.

    Keras' `model.predict`, the Classifier's tf.function (with a GPU, also through XLA), and what
    was exported of this model into run_dir/export and has its runtime installed. Gives {name:
    (preprocess, forward)}, and a line on each export that cannot be loaded and is left out.
    """
    classifier = Classifier.from_run_dir(run_dir)
    model = classifier.model
    forwards = {
        "model.predict": lambda pixels: tf.nn.softmax(model.predict(pixels, verbose=0)).numpy(),
        "tf.function": classifier.forward,
    }
    if tf.config.list_logical_devices("GPU"):
        forwards["tf.function, XLA"] = _through_xla(model, classifier.metadata["image_size"])
    exported, problems = _exported(Path(run_dir, "export"), classifier.metadata["sha256"])
    forwards |= exported
    return {name: (classifier.image, forward) for name, forward in forwards.items()}, problems


def _exported(folder, sha256):
    """Load the exports of the model of this hash: {name: network}, and a line on each unfit one."""
    networks, unfit = {}, {}
    readers = [(form, *reader) for form in FORMATS.values() for reader in form.runtimes.items()]
    for form, runtime, name in readers:
        path = folder / form.file
        if path.exists() and is_installed(RUNTIMES[runtime].module):
            try:
                network = load(path, runtime=runtime)
            except (FileNotFoundError, ValueError) as error:
                if runtime != "openvino_bf16":  # few CPUs have bfloat16
                    unfit[path] = f"not timed: {error}, or delete {path}"
                continue
            if network.metadata.get("sha256") == sha256:
                networks[name] = network
    return networks, list(unfit.values())


def time_in_turns(backends, photos, *, latency_runs):
    """Time `latency_runs` images (bytes, gone through in order and again), one at a time.

    The backends take turns, so that a machine that slows down does so for all. Gives milliseconds,
    {name: float64 [latency_runs, STAGES]}.
    """
    times = {name: [] for name in backends}
    for start in range(0, latency_runs, TURN):
        turn = [photos[n % len(photos)] for n in range(start, min(start + TURN, latency_runs))]
        for name, backend in backends.items():
            for photo in turn[:1] * WARM_UP:
                _time(photo, *backend)
            times[name] += [_time(photo, *backend) for photo in turn]
    return {name: np.array(rows) for name, rows in times.items()}


def summarise(times, *, image_size):
    """Give what latency.json holds of what `time_in_turns` measured, of squares of so many pixels.

    {"device", "image_size", "runs", "forms": {name: {stage: {"p50", "p90", "p99"}}}, "fastest": its
    name by the median, "total": its percentiles}, in milliseconds.
    """
    names = [f"p{percentile}" for percentile in PERCENTILES]
    forms = {}
    for name, rows in times.items():
        columns = np.percentile(rows, PERCENTILES, axis=0).T.tolist()
        stages = [dict(zip(names, column, strict=True)) for column in columns]
        forms[name] = dict(zip(STAGES, stages, strict=True))
    fastest = min(forms, key=lambda name: forms[name]["total"]["p50"])
    return {
        "device": device(),
        "image_size": image_size,
        "runs": len(times[fastest]),
        "forms": forms,
        "fastest": fastest,
        "total": forms[fastest]["total"],
    }


def throughput(backends, pixels, *, batches=(1, 8, 32), rounds=5):
    """Measure the forward pass alone on `pixels` uint8 [n, size, size, 3], repeated as needed.

    Gives the median images/s of `rounds` turns: {name: {batch: rate}}.
    """
    rates = {name: {} for name in backends}
    for batch in batches:
        images = np.resize(pixels, (batch, *pixels.shape[1:]))
        seconds = {name: [] for name in backends}
        for _ in range(rounds):
            for name, (_, forward) in backends.items():
                forward(images)
                begin = time.perf_counter()
                forward(images)
                seconds[name].append(time.perf_counter() - begin)
        for name, found in seconds.items():
            rates[name][batch] = float(batch / np.median(found))
    return rates


def device():
    """Name what TensorFlow computes on; the other runtimes stay on the CPU."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    return f"CPU, {cores()} cores"


def _through_xla(model, image_size):
    network = deployable(model, image_size=image_size)
    compiled = tf.function(
        lambda pixels: network(pixels, training=False), autograph=False, jit_compile=True
    )
    return lambda pixels: compiled(tf.constant(pixels)).numpy()


def _time(photo, preprocess, forward):
    """Milliseconds of each of STAGES; what `forward` gives is an array, so a GPU is done."""
    begin = time.perf_counter()
    pixels = preprocess(photo)[np.newaxis]
    decoded = time.perf_counter()
    forward(pixels)
    end = time.perf_counter()
    return [1000 * seconds for seconds in (decoded - begin, end - decoded, end - begin)]
