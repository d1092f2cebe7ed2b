"""Can TensorFlow use the GPUs of this machine, and what does it lack if not?"""

import ctypes
import shutil
import sysconfig
from pathlib import Path

# What TensorFlow 2.21 opens as it starts, of CUDA 12 and cuDNN 9. libcuda is the driver's; the
# others are in the wheels of tensorflow[and-cuda].
LIBRARIES = (
    *("libcuda.so.1", "libcudart.so.12", "libcublas.so.12", "libcublasLt.so.12"),
    *("libcufft.so.11", "libcusolver.so.11", "libcusparse.so.12", "libcudnn.so.9", "libnccl.so.2"),
)
WHEELS = "pip install 'tensorflow[and-cuda]==2.21.*' brings CUDA and cuDNN"
NEWER = (
    "take NVIDIA's TensorFlow container, or build TensorFlow with CUDA 12.8 or newer "
    "(tensorflow#89272)"
)


def present() -> bool:
    """Tell whether the machine has an NVIDIA GPU, or at least its driver."""
    return bool(shutil.which("nvidia-smi") or any(Path("/dev").glob("nvidia[0-9]*")))


def missing(libraries=LIBRARIES, site_packages=None) -> list[str]:
    """List the libraries that neither the loader nor the folders of NVIDIA's wheels have."""
    wheels = Path(site_packages or sysconfig.get_path("purelib")) / "nvidia"
    return [name for name in libraries if not (_loads(name) or any(wheels.glob(f"*/lib/{name}")))]


def _loads(name):
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def verdicts(cards, build, *, present, missing):
    """Yield (state, text) on the GPUs that TensorFlow sees.

    cards: their details as tf.config.experimental.get_device_details gives them. build: as
    tf.sysconfig.get_build_info. missing: names of libraries, when there is a GPU and no card.
    """
    if not build["is_cuda_build"]:
        text = "TensorFlow is built for the CPU"
        yield ("problem", f"{text}, though there is a GPU; {WHEELS}") if present else ("ok", text)
        return
    built = f"built for CUDA {build['cuda_version']}, cuDNN {build['cudnn_version']}"
    if cards:
        yield "ok", f"TensorFlow sees {len(cards)} GPUs ({built})"
        yield from _too_new(cards, build["cuda_compute_capabilities"])
    elif not present:
        yield "ok", f"TensorFlow sees no GPU ({built}, which are not needed then)"
    elif missing:
        remedy = "repair NVIDIA's driver" if "libcuda.so.1" in missing else WHEELS
        text = f"TensorFlow ({built}) cannot use the GPU: {', '.join(missing)} not found; {remedy}"
        yield "problem", text
    else:
        yield (
            "problem",
            f"TensorFlow ({built}) sees no GPU, though there is one and its libraries are found; "
            "look at CUDA_VISIBLE_DEVICES, and for another version of a library in LD_LIBRARY_PATH",
        )


def _too_new(cards, capabilities):
    """Yield a problem for each card of a later generation than the code in TensorFlow's wheel.

    `capabilities` are such as sm_89 and compute_90: the number is major and minor, here 8.9, 9.0.
    """
    newest = max(int(name.rpartition("_")[2].rstrip("af")) for name in capabilities)
    for card in cards:
        major, minor = card.get("compute_capability", (0, 0))
        if major > newest // 10:
            yield (
                "problem",
                f"{card.get('device_name', 'a GPU')} has compute capability {major}.{minor}, and "
                f"this TensorFlow holds code up to {newest // 10}.{newest % 10}: it compiles for "
                f"many minutes at the start, or fails; {NEWER}",
            )
