"""One GPU: the kit's `fit` by strategy, XLA, precision and batch norm, beside Keras and PyTorch.

Each way trains a ResNet-50 of 1,000 classes on uint8 images from the host, in a process of its own,
one after the other; after SECONDS the ways that are left are left out, and said. The figures are
images/s. Writes all that was measured to runs/bench/gpu.json too. Needs Python and TensorFlow
alone, and PyTorch for its lines:

    python tests/benchmarks/bench.py gpu
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

SECONDS = 470  # for all ways
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "runs" / "bench" / "gpu.json"


@dataclass(frozen=True)
class Way:
    """What a process trains: `program` is a function of ways/on_gpu.py."""

    program: str = "kit"
    precision: str = "mixed_bfloat16"
    strategy: bool = True
    xla: bool = True
    fused: bool = True  # the kit's batch norm, or Keras' own
    side: int = 224
    batch_size: int = 256
    rounds: int = 4
    steps: int = 40  # of a round
    validate: int = 10  # batches after each of the kit's rounds
    classes: int = 1000
    width: int = 64
    stage_sizes: tuple = (3, 4, 6, 3)
    device: str = "GPU"


WAYS = {  # what the figures need comes first
    "kit": Way(),
    "kit, no strategy": Way(strategy=False),
    "PyTorch compiled": Way("pytorch"),
    "PyTorch eager": Way("pytorch", xla=False),
    "keras.applications": Way("keras_fit"),
    "kit, 176 px, batch 128": Way(side=176, batch_size=128, steps=80),
    "kit, no XLA": Way(xla=False),
    "kit, no strategy, no XLA": Way(strategy=False, xla=False),
    "kit, TF32": Way(precision="float32"),
    "kit, Keras' batch norm": Way(fused=False),
    "two logical GPUs": Way("two_logical", "float32", side=64, batch_size=32, stage_sizes=(1,) * 4),
}
FIGURES = {  # name: (ours, theirs, mark)
    "mirrored_vs_single": ("kit", "kit, no strategy", 0.97),
    "vs_torch_compiled": ("kit", "PyTorch compiled", 1.0),
    "vs_torch_eager": ("kit", "PyTorch eager", 1.3),
    "vs_keras_applications": ("kit", "keras.applications", 1.5),
    "small_step": ("kit, 176 px, batch 128", "kit", 1.45),
    "xla_vs_none": ("kit", "kit, no XLA", None),
    "single_xla_vs_none": ("kit, no strategy", "kit, no strategy, no XLA", None),
    "bfloat16_vs_tf32": ("kit", "kit, TF32", None),
    "batch_norm_vs_keras": ("kit", "kit, Keras' batch norm", None),
}
TINY = {  # what a test trains in their places
    "side": 32,
    "batch_size": 4,
    "rounds": 2,
    "steps": 2,
    "validate": 2,
    "classes": 10,
    "width": 8,
    "stage_sizes": (1, 1),
    "device": "CPU",
}


def measure() -> dict:
    """Give the figures of the first GPU; none, and a line that says so, where there is no GPU."""
    import tensorflow as tf

    if not tf.config.list_physical_devices("GPU"):
        print("PART=gpu: TensorFlow sees no GPU here, so nothing is measured")
        return {}
    found = measured(WAYS, seconds=SECONDS)
    show(found)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    return figures(found)


def tiny(ways) -> dict:
    """Give the ways on the CPU, small, so that a test runs their code."""
    return {name: replace(way, **TINY) for name, way in ways.items()}


def measured(ways, *, seconds) -> dict:
    """Run each way in a process of its own; give what they measured, by name."""
    end, found = time.monotonic() + seconds, {}
    for name, way in ways.items():
        if way.program == "pytorch" and importlib.util.find_spec("torch") is None:
            print(f"{name}: left out, PyTorch is not installed")
            continue
        print(f"{name} ...", flush=True)
        try:
            found[name] = run(way, timeout=end - time.monotonic())
        except (subprocess.TimeoutExpired, ValueError) as error:
            late = isinstance(error, subprocess.TimeoutExpired)
            print(f"{name}: left out, {f'{seconds} s are over' if late else error}", flush=True)
    return found


def run(way, *, timeout) -> dict:
    """Run a way's process and give its result; ValueError with its last words if it has none."""
    given = json.dumps(asdict(way) | {"launched": time.time()})
    command = [sys.executable, "-m", "ways.on_gpu", given]
    path = os.pathsep.join([str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    if timeout <= 0:
        raise subprocess.TimeoutExpired(command, timeout)
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    if said.returncode == 0:
        return json.loads(said.stdout.splitlines()[-1])
    last = (said.stderr.strip() or said.stdout.strip() or "it said nothing").splitlines()[-1]
    raise ValueError(f"it ended with {said.returncode}: {last}")


def figures(found) -> dict:
    """Give the lines of bench.json of which both ways were measured."""
    rates = {name: way["images_per_second"] for name, way in found.items()}
    return {
        name: {"ours": rates[ours], "theirs": rates[theirs], "mark": mark, "unit": "images/s"}
        for name, (ours, theirs, mark) in FIGURES.items()
        if ours in rates and theirs in rates
    }


def show(found) -> None:
    """Print a row a way: images/s with their range, and what else it measured."""
    columns = {"first_step": "first step, s", "between": "between, s", "peak_gib": "peak, GiB"}
    print("", *{way["versions"] for way in found.values()}, sep="\n")
    titles = "".join(f"{title:>15}" for title in columns.values())
    print(f"{'':<26}{'images/s':>10}{'lowest':>9}{'highest':>9}{titles}")
    for name, way in found.items():
        rates = sorted(way["images_per_second"])
        cells = [f"{way[key]:15.2f}" if way[key] is not None else " " * 15 for key in columns]
        middle, lowest, highest = rates[len(rates) // 2], rates[0], rates[-1]
        print(f"{name:<26}{middle:10,.0f}{lowest:9,.0f}{highest:9,.0f}" + "".join(cells))
        if "apart" in way:
            print(f"{'':<26}one and two: losses to {way['apart']:.0e} of each other")
    print("between: seconds from an epoch's last step to the next one's first, without validation")
