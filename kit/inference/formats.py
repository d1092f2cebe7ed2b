"""Exported networks, loaded and run; of the runtimes, only the one asked for is imported."""

import importlib.util
import json
from functools import partial
from pathlib import Path

import numpy as np

from kit.files import hash_file
from kit.machine import cores

READERS = {  # the first is taken where none is asked for
    "saved_model": ("tensorflow",),
    "onnx": ("onnxruntime", "openvino", "openvino_bf16"),
    "litert": ("litert",),
    "litert_int8": ("litert",),
}
NEEDS = {  # to write and check a form: (module, package)
    "saved_model": (),
    "onnx": (("onnx", "onnx"), ("tf2onnx", "tf2onnx"), ("onnxruntime", "onnxruntime")),
    "litert": (("ai_edge_litert", "ai-edge-litert"),),
    "litert_int8": (("ai_edge_litert", "ai-edge-litert"),),
}
METADATA = {
    "form": str,
    "files": dict,
    "classes": list,
    "outputs": int,
    "image_size": int,
    "resize_side": int,
}


def check_settings(*, exports, calibration_images, top_k, latency_runs):
    """Raise ValueError for a parameter of notebook 04 that cannot be followed."""
    check_exports(exports, calibration_images)
    for name, count in (("top_k", top_k), ("latency_runs", latency_runs)):
        if count < 1:
            raise ValueError(f"{name}: {count} is under 1; take 1 or more")


def check_exports(exports, calibration_images):
    """Raise ValueError for an unknown form, an absent package of it, and int8 without images.

    Nothing is imported: TensorFlow's converter alone takes seconds.
    """
    for form in exports:
        if form not in READERS:
            raise ValueError(f'exports: "{form}" is not one of {", ".join(READERS)}')
        for module, package in NEEDS[form]:
            if not _is_there(module):
                raise ValueError(
                    f"exports: {form} needs {package}, which is not installed: "
                    "pip install -e '.[export]', or leave it out"
                )
    if "litert_int8" in exports and calibration_images < 1:
        raise ValueError(
            f"calibration_images: {calibration_images} show litert_int8 no ranges; take 200"
        )


class Network:
    """An exported network, ready to run: pixels in, probabilities out.

    It holds the runtime's buffers, so one thread at a time may call it.
    """

    def __init__(self, path, metadata, runtime, run):
        self.path, self.metadata, self.runtime, self._run = path, metadata, runtime, run

    def __call__(self, pixels):
        """Give float32 [n, classes], each row summing to 1, of uint8 [n, size, size, 3], any n."""
        size = self.metadata["image_size"]
        pixels = np.ascontiguousarray(pixels)
        if pixels.ndim != 4 or pixels.shape[1:] != (size, size, 3) or pixels.dtype != np.uint8:
            raise ValueError(
                f"pixels: {pixels.dtype.name} {list(pixels.shape)}, and {self.path.name} takes "
                f"uint8 [any, {size}, {size}, 3]"
            )
        if not len(pixels):
            return np.empty([0, self.metadata["outputs"]], np.float32)
        return self._run(pixels)


def load(path, *, runtime=""):
    """Load an exported file or folder that has the kit's metadata beside it: a Network.

    `runtime` is one of READERS; "" takes the first that reads the form. Nothing is loaded
    before the metadata and the hashes are found right. Raises FileNotFoundError when the export or
    its metadata is absent; ValueError when they do not belong together, for a runtime that does not
    read the form, and for one that is not installed.
    """
    return open_export(path, read_metadata(path), runtime=runtime)


def open_export(path, metadata, *, runtime=""):
    """Load an export whose metadata is known to be right; else as `load`."""
    path, readers = Path(path), READERS[metadata["form"]]
    runtime = runtime or readers[0]
    if runtime not in readers:
        raise ValueError(f'runtime: "{runtime}" does not read {path.name}: {" or ".join(readers)}')
    return Network(path, metadata, runtime, OPENERS[runtime](path))


def metadata_path(path):
    """Give where the metadata of an export stands: its path with .json at the end."""
    path = Path(path)
    return path.with_name(f"{path.name}.json")


def read_metadata(path):
    """Read the metadata of an export, and hash its files: errors as in `load`."""
    beside = metadata_path(path)
    for needed in (Path(path), beside):
        if not needed.exists():
            raise FileNotFoundError(f"{needed} is not there: export the model first (notebook 04)")
    remedy = "export the model again (notebook 04)"
    try:
        metadata = json.loads(beside.read_text(encoding="utf-8"))
        wrong = [key for key, kind in METADATA.items() if not isinstance(metadata.get(key), kind)]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{beside} cannot be read, {remedy}: {error}") from error
    if wrong or metadata["form"] not in READERS:
        lacks = ", ".join(wrong or ["form"])
        raise ValueError(f"{beside} lacks {lacks}: it is not this kit's; {remedy}")
    check_crop(beside, metadata, remedy)
    if len(metadata["classes"]) != metadata["outputs"]:
        raise ValueError(
            f"{beside} names {len(metadata['classes'])} classes of a network of "
            f"{metadata['outputs']}: {remedy}"
        )
    found = hashes(path)
    odd = sorted(name for name, _ in found.items() ^ metadata["files"].items())
    if odd:
        raise ValueError(f"{path}: {odd[0]} is not the file that {beside.name} tells of; {remedy}")
    return metadata


def check_crop(path, metadata, remedy):
    """Raise ValueError when the centre crop would not fit into the resized photograph."""
    image_size, resize_side = metadata["image_size"], metadata["resize_side"]
    if resize_side < image_size:
        raise ValueError(
            f"{path} has resize_side {resize_side}, under image_size {image_size}: {remedy}"
        )


def hashes(path):
    """Map the name of each file of an export to its SHA-256."""
    path = Path(path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {file.relative_to(path).as_posix(): hash_file(file) for file in files}


def require(module, package):
    """Import a package that only some forms need; ValueError with the remedy where it is absent."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{package} is not installed ({error}): pip install -e '.[export]'"
        ) from error


def _is_there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # what stands for it in sys.modules is no whole module
        return False


def _open_saved_model(path):
    tf = importlib.import_module("tensorflow")
    loaded = tf.saved_model.load(path)
    forward = loaded.signatures["pixels"]

    def run(pixels):
        return forward(images=tf.constant(pixels))["probabilities"].numpy()

    run.keeps = loaded  # its variables live as long as it does
    return run


def _open_onnxruntime(path):
    onnxruntime = require("onnxruntime", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    return lambda pixels: session.run(["probabilities"], {"images": pixels})[0]


def _open_openvino(path, precision):
    openvino = require("openvino", "openvino")
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": cores(),
        "INFERENCE_PRECISION_HINT": precision,  # its own choice is bfloat16 where the CPU has it
    }
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != precision:
        raise ValueError(f"runtime: this CPU has no {precision}; take openvino")
    request = compiled.create_infer_request()
    return lambda pixels: np.array(request.infer({"images": pixels})["probabilities"])


def _open_litert(path):
    interpreter = require("ai_edge_litert.interpreter", "ai-edge-litert").Interpreter(
        str(path), num_threads=cores()
    )
    entry = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]
    interpreter.allocate_tensors()

    def run(pixels):
        if interpreter.get_input_details()[0]["shape"][0] != len(pixels):
            interpreter.resize_tensor_input(entry, pixels.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(entry, pixels)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    return run


OPENERS = {
    "tensorflow": _open_saved_model,
    "onnxruntime": _open_onnxruntime,
    "openvino": partial(_open_openvino, precision="f32"),
    "openvino_bf16": partial(_open_openvino, precision="bf16"),
    "litert": _open_litert,
}
