"""How long a photograph takes, from its bytes to its probabilities, in each form of the network.

A way to classify is (image, forward): encoded bytes -> uint8 [size, size, 3], and uint8 [n, size,
size, 3] -> probabilities [n, classes].
"""

import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tensorflow as tf

from kit.files import write_json
from kit.inference import formats
from kit.inference.classifier import Classifier
from kit.machine import cores
from kit.model.folding import deployable

STAGES = ("decode_resize", "forward", "total")
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
TURN = 10  # photographs in a row; a runtime's threads still spin for a while when its turn is over
WARM_UP = 2  # untimed ones before them: the first of all also traces, allocates and chooses
EXPORTED = {  # runtime and file of run_dir/export -> name
    ("tensorflow", "saved_model"): "SavedModel",
    ("onnxruntime", "model.onnx"): "ONNX Runtime",
    ("openvino", "model.onnx"): "OpenVINO",
    ("openvino_bf16", "model.onnx"): "OpenVINO bf16",
    ("litert", "model.tflite"): "LiteRT",
    ("litert", "model_int8.tflite"): "LiteRT int8",
}
MODULES = {"litert": "ai_edge_litert", "openvino_bf16": "openvino"}  # the others: as the runtime


def ways(run_dir):
    """Make every way to run the model of `run_dir` that can be had here: {name: (image, forward)}.

    Keras' `model.predict`, the Classifier's tf.function (with a GPU, also through XLA), and what
    was exported of this model into run_dir/export and has its runtime installed. An export that
    cannot be loaded is left out, and a line is printed that says why.
    """
    classifier = Classifier.from_run_dir(run_dir)
    model, image = classifier.model, classifier.image
    forwards = {
        "model.predict": lambda pixels: tf.nn.softmax(model.predict(pixels, verbose=0)).numpy(),
        "tf.function": classifier.forward,
    }
    if tf.config.list_logical_devices("GPU"):
        forwards["tf.function, XLA"] = _through_xla(model, classifier.metadata["image_size"])
    unfit = {}
    for (runtime, file), name in EXPORTED.items():
        path = Path(run_dir) / "export" / file
        if path.exists() and find_spec(MODULES.get(runtime, runtime)):
            try:
                network = formats.load(path, runtime=runtime)
            except (FileNotFoundError, ValueError) as error:
                if runtime != "openvino_bf16":  # few CPUs have bfloat16
                    unfit[path] = error
                continue
            if network.metadata.get("sha256") == classifier.metadata["sha256"]:
                forwards[name] = network
    for path, error in unfit.items():
        print(f"not timed: {error}, or delete {path}")
    return {name: (image, forward) for name, forward in forwards.items()}


def take_turns(ways, photos, *, latency_runs):
    """Time `latency_runs` photographs (bytes, gone through in order and again), one at a time.

    The ways take turns, so that a machine that slows down does so for all. Gives milliseconds,
    {name: float64 [latency_runs, STAGES]}.
    """
    if latency_runs < 1:
        raise ValueError(f"latency_runs: {latency_runs} times nothing; give 1 or more")
    if not len(photos):
        raise ValueError("no photograph to time: give at least one")
    times = {name: [] for name in ways}
    for start in range(0, latency_runs, TURN):
        turn = [photos[n % len(photos)] for n in range(start, min(start + TURN, latency_runs))]
        for name, way in ways.items():
            for photo in turn[:1] * WARM_UP:
                _time(photo, *way)
            times[name] += [_time(photo, *way) for photo in turn]
    return {name: np.array(rows) for name, rows in times.items()}


def summarise(times, *, image_size):
    """Give what latency.json holds of what `take_turns` measured, of squares of so many pixels.

    {"device", "image_size", "runs", "forms": {name: {stage: {"p50", "p90", "p99"}}}, "fastest": its
    name by the median, "total": its percentiles}, in milliseconds.
    """
    forms = {
        name: {
            stage: {mark: float(np.percentile(column, q)) for mark, q in PERCENTILES.items()}
            for stage, column in zip(STAGES, rows.T, strict=True)
        }
        for name, rows in times.items()
    }
    fastest = min(forms, key=lambda name: forms[name]["total"]["p50"])
    return {
        "device": device(),
        "image_size": image_size,
        "runs": len(times[fastest]),
        "forms": forms,
        "fastest": fastest,
        "total": forms[fastest]["total"],
    }


def throughput(ways, pixels, *, batches=(1, 8, 32), rounds=5):
    """Measure the forward pass alone on `pixels` uint8 [n, size, size, 3], repeated as needed.

    Gives the median images/s of `rounds` turns: {name: {batch: rate}}.
    """
    rates = {name: {} for name in ways}
    for batch in batches:
        images = np.resize(pixels, (batch, *pixels.shape[1:]))
        seconds = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (_, forward) in ways.items():
                forward(images)
                begin = time.perf_counter()
                forward(images)
                seconds[name].append(time.perf_counter() - begin)
        for name, found in seconds.items():
            rates[name][batch] = float(batch / np.median(found))
    return rates


def write_latency(run_dir, measured):
    """Write run_dir/latency.json, whole or not at all, and give its path."""
    path = Path(run_dir) / "latency.json"
    write_json(path, measured)
    return path


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


def _time(photo, image, forward):
    """Milliseconds of each of STAGES; what `forward` gives is an array, so a GPU is done."""
    begin = time.perf_counter()
    pixels = image(photo)[np.newaxis]
    decoded = time.perf_counter()
    forward(pixels)
    end = time.perf_counter()
    return [1000 * seconds for seconds in (decoded - begin, end - decoded, end - begin)]
