"""Writes a trained model as SavedModel, ONNX, LiteRT or LiteRT int8, for other programs to run.

Each takes uint8 pixels as evaluation preprocesses them and gives probabilities. A converter is
imported only when its format is asked for: pip install -e '.[export]'.
"""

import shutil
import tempfile
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kit.data.manifest import read_manifest
from kit.evaluation.comparison import compare
from kit.evaluation.compatibility import check_data
from kit.files import naming_full_disk, plain_path, replacing, replacing_folder, seal, write_json
from kit.inference import formats
from kit.inference.classifier import load_model
from kit.inference.formats import FORMATS
from kit.locks import holding
from kit.model.folding import deployable, in_float32
from kit.model.metadata import sizes_of
from kit.pipeline.dataset import evaluation_dataset
from kit.pipeline.preprocessing import evaluation_image

LOCK = ".export.lock"  # in run_dir
TOLERANCE = 1e-4  # of log-probabilities, which are the logits but for a number per image
LEAST = 1e-30  # float32 has no logarithm of what it rounds to zero
CHECKED = 32  # images
FLOAT_OPS = ["SOFTMAX", "FULLY_CONNECTED"]  # in int8, 1,000 classes share 256 probabilities
tf.get_logger().setLevel("WARNING")  # it would list the assets that it writes


def export_all(run_dir, exports, *, calibration=None, validation=None):
    """Write the model of `run_dir` in each format of `exports` into run_dir/export, and check it.

    calibration: uint8 [n, image_size, image_size, 3], training images, from whose activations
    "litert_int8" takes its ranges; the checks use the first of them, or noise without any.
    validation: a dataset of (pixels, labels), on which the accuracy of "litert_int8" is measured.

    The metadata beside each file (formats.metadata_path) is written last: model.json's, hashes, and
    what the check found. Returns a list of {"form", "path", "bytes", "max_difference",
    "agreement"}: the largest difference of a log-probability from Keras, and the share of the
    checked images with Keras' prediction; for "litert_int8" with a validation also "cost", as
    `cost` gives it.

    Raises ValueError, before anything is written, for an unknown format, an absent package or
    lacking calibration; and for a float format that differs by more than TOLERANCE, which is then
    removed.
    """
    formats.check_exports(exports)
    if "litert_int8" in exports and (calibration is None or not len(calibration)):
        raise ValueError("calibration_images: 0 show litert_int8 no ranges; take 200")
    model, metadata = load_model(run_dir)
    network = deployable(model, image_size=metadata["image_size"])
    network = keras.Model(network.input, {"probabilities": network.output})  # the name everywhere
    if calibration is None:
        noise = np.random.default_rng(0)
        pixels = noise.integers(0, 256, (4, *network.input_shape[1:]), np.uint8)
    else:
        pixels = calibration[:CHECKED]
    with tf.device("CPU:0"):  # a GPU may round convolutions to 10 bits (TF32)
        expected = keras.ops.log_softmax(in_float32(model)(pixels, training=False)).numpy()
    with holding(Path(run_dir) / LOCK, f"run_dir {run_dir} is being exported"):
        return [
            _export(run_dir, name, network, metadata, pixels, expected, calibration, validation)
            for name in exports
        ]


def _export(run_dir, name, network, metadata, pixels, expected, calibration, validation):
    path = Path(run_dir) / "export" / FORMATS[name].file
    with naming_full_disk(path):  # also where a converter's own files are
        _write(name, network, path, metadata, calibration)
    described = metadata | {"form": name, "outputs": len(metadata["classes"])}
    described |= {"files": formats.hashes(path)}
    checks = _check(path, described, pixels, expected)
    if name == "litert_int8" and validation is not None:
        exported = formats.open_export(path, described)
        checks["cost"] = cost(
            exported, lambda images: network.predict_on_batch(images)["probabilities"], validation
        )
    write_json(formats.metadata_path(path), seal(described | {"checks": checks}))
    size = sum(file.stat().st_size for file in formats.files(path))
    return {"form": name, "path": str(path), "bytes": size, **checks}


def int8_images(data_dir, metadata, *, calibration_images):
    """Give the `calibration` and `validation` of `export_all` from the shards of a model's data.

    Raises ValueError for other data than the model of `metadata`, its model.json, was trained on.
    """
    check_data(metadata, read_manifest(data_dir))
    sizes = sizes_of(metadata)
    batches = [
        evaluation_dataset(data_dir=data_dir, split=split, batch_size=batch_size, **sizes)
        for split, batch_size in (("train", calibration_images), ("validation", 32))
    ]
    return next(batches[0].as_numpy_iterator())[0], batches[1]


def _write(name, network, path, metadata, calibration):
    made = replacing_folder(path) if name == "saved_model" else replacing(path)
    with made as temporary, plain_path(temporary) as plain:
        match name:
            case "saved_model":
                write_saved_model(network, plain, **sizes_of(metadata))
            case "onnx":  # images uint8 [any, size, size, 3] -> probabilities
                signature = [_pixels(network)]
                network.export(plain, format="onnx", input_signature=signature, verbose=False)
            case "litert":
                with _converter(network) as converter:
                    temporary.write_bytes(converter.convert())
            case "litert_int8":
                temporary.write_bytes(litert_int8(network, calibration))


def write_saved_model(network, path, **sizes):
    """Write a TensorFlow SavedModel with two signatures, each giving {"probabilities"}.

    "serving_default" takes encoded images, image_bytes: string [batch], and decodes, resizes and
    crops them as evaluation does; "pixels" takes what the other formats take, images. Other images
    than RGB or grey JPEGs differ by about one of 255 levels from what preparation stores of them.
    A model trained at a store_short_side expects images of that short side. `sizes` is what
    evaluation_image takes.
    """
    size = network.input_shape[1]
    decode = partial(evaluation_image, **sizes)

    def from_bytes(image_bytes):
        with tf.device("CPU:0"):  # the pixels are to be the same beside a GPU
            square = tf.TensorSpec([size, size, 3], tf.uint8)
            images = tf.map_fn(decode, image_bytes, fn_output_signature=square)
        return network(images, training=False)

    def from_pixels(images):
        return network(images, training=False)

    module = tf.Module()  # Keras' own archive would hold every variable twice
    module.weights = [weight.value for weight in network.weights]
    encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
    signatures = {
        "serving_default": tf.function(from_bytes, input_signature=[encoded]),
        "pixels": tf.function(from_pixels, input_signature=[_pixels(network)]),
    }
    tf.saved_model.save(module, str(path), signatures)


def litert_int8(network, calibration):
    """Give a LiteRT file of 8-bit weights and activations, quantised after training, as bytes.

    Ranges are those that the images of `calibration` show. The last layer and the softmax stay in
    float32, which costs 6 MB of weights at 1,000 classes: quantised, probabilities under 1/256 come
    out as zero and the top five are in no order.
    """
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=FLOAT_OPS)
    with _converter(network) as converter, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the debugger's own interpreter is deprecated
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in calibration)
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_options=options
        )
        return debugger.get_nondebug_quantized_model()


def cost(network, original, dataset):
    """Compare the predictions of two networks on (pixels, labels) batches.

    Returns what comparison.compare gives, the share of images on which the two agree, "agreement",
    and the top-1 of each, "top1" and "original_top1".
    """
    batches = [
        (labels, network(pixels).argmax(axis=1), original(pixels).argmax(axis=1))
        for pixels, labels in dataset.as_numpy_iterator()
    ]
    labels, ours, theirs = (np.concatenate(column) for column in zip(*batches, strict=True))
    return compare(ours == labels, theirs == labels) | {
        "agreement": float((ours == theirs).mean()),
        "top1": float((ours == labels).mean()),
        "original_top1": float((theirs == labels).mean()),
    }


def _check(path, metadata, pixels, expected):
    """Compare an export's log-probabilities with Keras', of one image and of several at once."""
    with tf.device("CPU:0"):
        network = formats.open_export(path, metadata)
        found = np.concatenate([network(pixels[:1]), network(pixels[1:])])
    found, expected = np.log(np.maximum(found, LEAST)), np.maximum(expected, np.log(LEAST))
    difference = float(np.abs(found - expected).max())
    if metadata["form"] != "litert_int8" and not difference <= TOLERANCE:
        formats.metadata_path(path).unlink(missing_ok=True)  # first: without it nothing is loaded
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise ValueError(
            f"{path}: its log-probabilities differ from Keras' by up to {difference:.2g}, "
            f"more than {TOLERANCE}; it is removed"
        )
    agreement = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return {"max_difference": difference, "agreement": agreement}


@contextmanager
def _converter(network):
    """Give LiteRT's converter of the network, for any number of images at once."""
    with tempfile.TemporaryDirectory() as folder:
        network.export(
            folder, format="tf_saved_model", input_signature=[_pixels(network)], verbose=False
        )
        yield tf.lite.TFLiteConverter.from_saved_model(folder)


def _pixels(network):
    return tf.TensorSpec(network.input_shape, tf.uint8, name="images")
