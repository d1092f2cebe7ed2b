"""The formats that a model is exported in, and the runtimes that load and run them.

Of the runtimes, only the one that is asked for is imported.
"""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kit import muted
from kit.data.paths import printable
from kit.files import hash_file, plain_path
from kit.machine import cores
from kit.model.metadata import SIZES, read_metadata

METADATA = {"form": str, "files": dict, **SIZES, "outputs": int}
REMEDY = "export the model again (notebook 04)"


class Runtime(NamedTuple):
    module: str
    open: Callable  # path -> function of pixels, which gives probabilities


class Format(NamedTuple):
    file: str  # its file or folder in run_dir/export
    runtimes: dict[str, str]  # that read it, with their names in figures; the first by default
    modules: tuple[str, ...]  # that write it, and last the default runtime's


def check_exports(exports) -> None:
    """Raise ValueError for an unknown format, and for one whose packages are not installed.

    Nothing is imported: TensorFlow's converter alone takes seconds.
    """
    for name in exports:
        if name not in FORMATS:
            raise ValueError(f'exports: "{name}" is not one of {", ".join(FORMATS)}')
        for module in FORMATS[name].modules:
            if not is_installed(module):
                raise ValueError(
                    f"exports: {name} needs {_package(module)}, which is not installed: "
                    "pip install -e '.[export]', or leave it out"
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
        with _one_line(f"{self.path} cannot be run by {self.runtime}"):
            return self._run(pixels)


@contextmanager
def _one_line(what):
    """Raise a runtime's own error, whatever its kind and length, as a line of ValueError."""
    try:
        yield
    except (ValueError, MemoryError):
        raise
    except Exception as error:
        reason = printable(" ".join(str(error).split()))[:300]
        raise ValueError(f"{what} ({reason}): {REMEDY}, or name another runtime") from error


def load(path, *, runtime="") -> Network:
    """Load an exported file or folder that has the kit's metadata beside it.

    `runtime` is one of RUNTIMES; "" takes the first that reads the format. The metadata and the
    hashes are checked before anything is loaded. Raises FileNotFoundError when the export or its
    metadata is absent; ValueError when they do not belong together, and for a runtime that does not
    read the format or is not installed.
    """
    return open_export(path, read_export(path), runtime=runtime)


def open_export(path, metadata, *, runtime="") -> Network:
    """Load an export whose metadata has been checked; else as `load`."""
    path, runtimes = Path(path), FORMATS[metadata["form"]].runtimes
    runtime = runtime or next(iter(runtimes))
    if runtime not in runtimes:
        known = " or ".join(runtimes)
        raise ValueError(f'runtime: "{runtime}" does not read {path.name}: {known}')
    with _one_line(f"{path} cannot be loaded by {runtime}"), plain_path(path) as plain:
        run = RUNTIMES[runtime].open(Path(plain))
    return Network(path, metadata, runtime, run)


def in_run_dir(run_dir) -> Iterator[Path]:
    """Give the float exports in a run_dir whose runtime is installed, what starts soonest first."""
    for name in STARTING:
        path = Path(run_dir, "export", FORMATS[name].file)
        if path.exists() and is_installed(FORMATS[name].modules[-1]):
            yield path


def check_same_model(metadata, run_dir) -> None:
    """Raise ValueError unless an export's metadata is of the model in `run_dir`."""
    ours = read_metadata(Path(run_dir, "model.json"), SIZES | {"sha256": str})
    if (metadata.get("sha256"), metadata["classes"]) != (ours["sha256"], ours["classes"]):
        raise ValueError(f"it is of another model than {run_dir} holds; {REMEDY}")


def metadata_path(path) -> Path:
    """Return the path of an export's metadata: its own with .json at the end."""
    return Path(f"{path}.json")


def read_export(path) -> dict:
    """Read the metadata of an export, and hash its files: errors as in `load`."""
    beside = metadata_path(path)
    for needed in (Path(path), beside):
        if not needed.exists():
            raise FileNotFoundError(f"{needed} is not there: export the model first (notebook 04)")
    metadata = read_metadata(beside, METADATA, REMEDY)
    if metadata["form"] not in FORMATS:
        raise ValueError(f"{beside} lacks form: it is not this kit's; {REMEDY}")
    if len(metadata["classes"]) != metadata["outputs"]:
        raise ValueError(
            f"{beside} names {len(metadata['classes'])} classes of a network of "
            f"{metadata['outputs']}: {REMEDY}"
        )
    if wrong := hashes(path).items() ^ metadata["files"].items():
        changed = Path(path, min(wrong)[0])
        raise ValueError(f"{changed} is not the file that {beside.name} tells of; {REMEDY}")
    return metadata


def hashes(path) -> dict[str, str]:
    """Map the name of each file of an export to its SHA-256."""
    return {file.relative_to(path).as_posix(): hash_file(file) for file in files(path)}


def files(path) -> list[Path]:
    """List the files of an export, which is a file or a folder."""
    path = Path(path)
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def is_installed(module) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # sys.modules holds a stand-in for it, without a spec
        return False


def _import(module):
    """Import a package that only some formats need; ValueError with the remedy without it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name, remedy = _package(module), "pip install -e '.[export]'"
        raise ValueError(f"{name} is not installed ({error}): {remedy}") from error


def _package(module):
    return module.partition(".")[0].replace("_", "-")


def _open_saved_model(path):
    tf = _import("tensorflow")
    loaded = tf.saved_model.load(path)  # which the function keeps: its variables live as long

    def run(pixels):
        return loaded.signatures["pixels"](images=tf.constant(pixels))["probabilities"].numpy()

    return run


def _check_onnx(path):
    """Raise ValueError for a file that cannot be read, or that reads others."""
    _import("onnx")
    from google.protobuf.message import DecodeError

    from kit.model import foreign_files  # h5py takes its time

    try:
        foreign_files.check_onnx(path)
    except (*foreign_files.UNREADABLE, DecodeError) as error:
        reason = printable(str(error))[:300]
        raise ValueError(f"{path} cannot be read as ONNX ({reason}): {REMEDY}") from None


def _open_onnxruntime(path):
    onnxruntime = _import("onnxruntime")
    _check_onnx(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    return lambda pixels: session.run(["probabilities"], {"images": pixels})[0]


def _open_openvino(path, precision):
    openvino = _import("openvino")
    _check_onnx(path)
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
    litert = _import("ai_edge_litert.interpreter")
    with muted():  # it notes that it has created a delegate
        interpreter = litert.Interpreter(str(path), num_threads=cores())
        interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]

    def run(pixels):
        if interpreter.get_input_details()[0]["shape"][0] != len(pixels):
            with muted():  # as above
                interpreter.resize_tensor_input(entry, pixels.shape)
                interpreter.allocate_tensors()
        interpreter.set_tensor(entry, pixels)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    return run


RUNTIMES = {
    "tensorflow": Runtime("tensorflow", _open_saved_model),
    "onnxruntime": Runtime("onnxruntime", _open_onnxruntime),
    "openvino": Runtime("openvino", partial(_open_openvino, precision="f32")),
    "openvino_bf16": Runtime("openvino", partial(_open_openvino, precision="bf16")),
    "litert": Runtime("ai_edge_litert", _open_litert),
}
OF_ONNX = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "openvino_bf16": "OpenVINO bf16"}
FORMATS = {
    "saved_model": Format("saved_model", {"tensorflow": "SavedModel"}, ("tensorflow",)),
    "onnx": Format("model.onnx", OF_ONNX, ("onnx", "tf2onnx", "onnxruntime")),
    "litert": Format("model.tflite", {"litert": "LiteRT"}, ("ai_edge_litert",)),
    "litert_int8": Format("model_int8.tflite", {"litert": "LiteRT int8"}, ("ai_edge_litert",)),
}
STARTING = ("litert", "onnx", "saved_model")  # by the time from the shell to one answer
