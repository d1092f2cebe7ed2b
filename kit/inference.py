"""A trained model and photographs in; class names with probabilities, and milliseconds, out."""

import json
import os
import time
from collections import Counter
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kit.files import replacing
from kit.pipeline.preprocessing import evaluation_image
from kit.prep.listing import IMAGE_SUFFIXES
from kit.prep.paths import printable
from kit.prep.records import mend

METADATA = {"classes": list, "image_size": int, "resize_side": int}
BATCH = 32  # photographs in memory at once
WARM_UP = 5  # untimed runs: the first ones trace, allocate and choose algorithms
STAGES = ("decode_resize", "transfer", "forward", "total")
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}


def load_model(run_dir):
    """Load run_dir/model.keras and model.json: the Keras model and the metadata beside it.

    Raises FileNotFoundError when either is absent, ValueError when either cannot be read or they
    disagree on the number of classes.
    """
    metadata = _read_metadata(_require(Path(run_dir) / "model.json"))
    path = _require(Path(run_dir) / "model.keras")
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} cannot be read as a model, train again: {reason}") from error
    outputs, classes = model.output_shape[-1], len(metadata["classes"])
    if outputs != classes:
        raise ValueError(
            f"{path} has {outputs} classes and model.json beside it {classes}: "
            "they are not of the same training; train again or name another run_dir"
        )
    return model, metadata


def read_photos(photos):
    """Read an image file, or the image files directly in a folder: a sorted list of (name, bytes).

    In a folder, other files are passed over by their names. Raises FileNotFoundError when `photos`
    is not there, ValueError when a folder holds no image.
    """
    path = Path(photos)
    if not str(photos) or not path.exists():
        raise FileNotFoundError(
            f'photos: "{photos}" is not there; name an image or a folder of images'
        )
    if path.is_file():
        return [(printable(path.name), path.read_bytes())]
    files = [file for file in sorted(path.iterdir()) if _looks_like_image(file)]
    if not files:
        raise ValueError(
            f'photos: no image directly in "{photos}" ({", ".join(sorted(IMAGE_SUFFIXES))}); '
            "name an image or a folder of images"
        )
    return [(printable(file.name), file.read_bytes()) for file in files]


class Classifier:
    """A model ready to classify encoded photographs, on a GPU where there is one, else on a CPU.

    It holds the compiled decoding and forward pass, which are slow to make and fast to use again.
    """

    def __init__(self, model, metadata):
        self.model = model
        self.classes = metadata["classes"]
        size = metadata["image_size"]
        self.device = (
            tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        )[0].name
        self._decode = tf.function(
            partial(evaluation_image, image_size=size, resize_side=metadata["resize_side"]),
            input_signature=[tf.TensorSpec([], tf.string)],
        )
        self._forward = tf.function(
            lambda pixels: tf.nn.softmax(model(pixels, training=False)),
            input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8)],
            autograph=False,
        )

    @classmethod
    def from_run_dir(cls, run_dir):
        """Load what notebook 02 left in `run_dir`; errors as in `load_model`."""
        return cls(*load_model(run_dir))

    def image(self, encoded, *, name="the image"):
        """Give what the network sees of a photograph: uint8 [image_size, image_size, 3].

        Bytes pass through the same mending as in preparation, so that any photograph which can be
        prepared can be classified. Raises ValueError, with `name`, when they cannot be decoded.
        """
        try:
            with tf.device("CPU:0"):
                return self._decode(mend(encoded)[0])
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            damaged = isinstance(error, tf.errors.InvalidArgumentError)
            reason = "truncated or damaged" if damaged else error
            raise ValueError(
                f"{name} ({len(encoded):,} bytes) cannot be decoded ({reason}); "
                "give a whole JPEG or PNG"
            ) from error

    def probabilities(self, encoded):
        """Give float32 [photographs, classes], each row summing to 1, for a sequence of bytes."""
        rows = [np.empty([0, len(self.classes)], "float32")]
        for start in range(0, len(encoded), BATCH):
            images = [
                self.image(photo, name=f"image {number}")
                for number, photo in enumerate(encoded[start : start + BATCH], start)
            ]
            rows.append(self._forward(tf.stack(images)).numpy())
        return np.concatenate(rows)

    def classify(self, encoded, *, top_k, name="the image"):
        """List the `top_k` likeliest classes, at most all, of one photograph: (name, probability).

        Raises ValueError, with `name`, when the bytes cannot be decoded, and for a `top_k` under 1.
        """
        if top_k < 1:
            raise ValueError(f"top_k: {top_k} names no class; give 1 or more")
        image = self.image(encoded, name=name)
        row = self._forward(image[tf.newaxis]).numpy()[0]
        order = np.argsort(-row, kind="stable")[:top_k]
        return [(self.classes[i]["name"], float(row[i])) for i in order]

    def latency(self, photos, *, latency_runs):
        """Time `latency_runs` photographs one at a time, from encoded bytes to probabilities.

        `photos` is a sequence of bytes, gone through in turn and again. Gives milliseconds as
        {"p50", "p90", "p99"} for each of "decode_resize" (on the CPU), "transfer" (to the device;
        next to nothing when that is the CPU), "forward" (with the probabilities' way back) and
        "total", and "runs", "device" and "precision". The first photographs are run untimed.
        """
        if latency_runs < 1:
            raise ValueError(f"latency_runs: {latency_runs} times nothing; give 1 or more")
        if not len(photos):
            raise ValueError("no photograph to time: give at least one")
        times = np.array([self._time(p) for p in islice(cycle(photos), WARM_UP + latency_runs)])
        marks = {
            stage: {name: float(np.percentile(column, q)) for name, q in PERCENTILES.items()}
            for stage, column in zip(STAGES, times[WARM_UP:].T, strict=True)
        }
        return {
            **marks,
            "runs": latency_runs,
            "device": self._describe_device(),
            "precision": self._describe_precision(),
        }

    def _time(self, encoded):
        """Milliseconds of each of STAGES for one photograph."""
        start = time.perf_counter()
        with tf.device("CPU:0"):
            image = self.image(encoded)[tf.newaxis]
        decoded = time.perf_counter()
        with tf.device(self.device):
            pixels = tf.identity(image)
        tf.test.experimental.sync_devices()  # a GPU copies while Python goes on
        transferred = time.perf_counter()
        self._forward(pixels).numpy()
        end = time.perf_counter()
        stages = [decoded - start, transferred - decoded, end - transferred, end - start]
        return [1000 * seconds for seconds in stages]

    def _describe_device(self):
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
        return f"CPU, {os.cpu_count()} cores"

    def _describe_precision(self):
        """Name the dtype policy of most layers; means and logits are float32 in any case."""
        policies = Counter(layer.dtype_policy.name for layer in self.model.layers if layer.weights)
        return policies.most_common(1)[0][0]


def write_latency(run_dir, measured):
    """Write run_dir/latency.json, whole or not at all, and give its path."""
    path = Path(run_dir) / "latency.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    return path


def _require(path):
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there: train a model first (notebook 02), or name another run_dir"
        )
    return path


def _read_metadata(path):
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        wrong = [key for key, kind in METADATA.items() if not isinstance(metadata.get(key), kind)]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read, train again: {error}") from error
    if wrong:
        raise ValueError(f"{path} lacks {', '.join(wrong)}: it is not the kit's; train again")
    return metadata


def _looks_like_image(file):
    return file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."
