"""Can this machine train, and is it safe to? A line a check, with the remedy where one is needed.

TensorFlow is asked in its own process, because a broken driver may hang or crash it.
"""

import importlib.metadata
import multiprocessing
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from kit.data import manifest, storage
from kit.doctor import exposure, gpus
from kit.machine import cores

SECONDS = 300  # for all that TensorFlow is asked: under a minute of one core, tests say
GIB = 2**30
PINNED = ("tensorflow", "keras", "tensorboard")
LEAST_FREE = 2 * GIB  # checkpoints of 205 MB each: the last three, the best, the one being written
REMEDY = "with several GPUs try NCCL_P2P_DISABLE=1, with one see nvidia-smi, with none make setup"
IMAGENET = "shards of all of ImageNet take 150 GB"


class Line(NamedTuple):
    """What a check found: state is "ok", "warning" or "problem"."""

    state: str
    text: str


def examine(run_dir, data_dir):
    """Give a Line for each check, as they are made; in under a minute, unless a device hangs."""
    checks = [(versions,), (machine,), (bfloat16,), (disks, run_dir, data_dir)]
    checks += [(jupyter,), (tensorboard,), (driver,), (asked_apart, data_dir)]
    for check, *about in checks:
        try:
            yield from check(*about)
        except Exception as error:  # of a package that is missing, broken or of another version
            why = str(error) or type(error).__name__
            yield Line("warning", f"{check.__name__} cannot be checked ({why}); make setup")


def versions():
    yield Line("ok", f"Python {platform.python_version()} on {platform.system()}")
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in importlib.metadata.requires("resnet50-kit")]
    except importlib.metadata.PackageNotFoundError:
        yield Line("warning", "the kit is not installed, so its pins are unknown; make setup")
        return
    for pin in wanted:
        if pin.name in PINNED and (pin.marker is None or pin.marker.evaluate({"extra": ""})):
            yield _compare(pin)


def _compare(pin):
    try:
        found = importlib.metadata.version(pin.name)
    except importlib.metadata.PackageNotFoundError:
        return Line("problem", f"{pin.name} is not installed; make setup")
    if pin.specifier.contains(found):
        return Line("ok", f"{pin.name} {found}, as pinned ({pin.specifier})")
    text = f"{pin.name} {found}: the kit is tested with {pin.specifier}"
    return Line("problem", f"{text}; make setup")


def machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    text = f"{cores()} of {os.cpu_count()} cores, {memory:.0f} GiB of memory"
    if memory < 6:
        yield Line("warning", f"{text}: little for shuffling ImageNet; lower shuffle_shards to 2")
    else:
        yield Line("ok", text)


def bfloat16():
    path = Path("/proc/cpuinfo")
    flags = set(path.read_text(encoding="utf-8").split()) if path.exists() else set()
    if found := sorted(flags & {"avx512_bf16", "amx_bf16", "bf16"}):
        yield Line("ok", f"the CPU has bfloat16 ({', '.join(found)}): mixed_bfloat16 is faster")
    else:
        yield Line("ok", "the CPU shows no bfloat16 instructions: on it, float32 is faster")


def disks(run_dir, data_dir):
    """Say what is free where the run, and shards that are not there yet, will be written."""
    for name, folder in (("run_dir", run_dir), ("data_dir", data_dir)):
        place = storage.folder(folder).local
        if place is None or (name == "data_dir" and (place / "manifest.json").exists()):
            continue
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        text = f"{name} {folder}: {free / 1e9:.0f} GB free"
        if not os.access(place, os.W_OK):
            yield Line("problem", f"{text}, but {place} cannot be written; choose another {name}")
        elif free < LEAST_FREE:
            yield Line("problem", f"{text}: too little; make room, or choose another {name}")
        else:
            yield Line("ok", f"{text}; {IMAGENET}" if name == "data_dir" else text)


def shards(data_dir):
    """Say whether data_dir holds whole shards that can be read."""
    try:
        if storage.folder(data_dir).size(manifest.MANIFEST) is None:
            return Line("warning", f"data_dir {data_dir}: no shards yet; {manifest.REMEDY}")
        splits = manifest.read_manifest(data_dir)["splits"]
        paths = [path for split in splits for path in manifest.shard_paths(data_dir, split)]
        if storage.folder(data_dir).local:
            for path in paths:
                with Path(path).open("rb") as shard:
                    shard.read(1)
    except (ValueError, OSError, ImportError) as error:
        return Line("problem", " ".join(str(error).split()))
    counts = ", ".join(f"{split['images']:,} {name}" for name, split in splits.items())
    return Line("ok", f"data_dir {data_dir}: {len(paths)} shards, {counts} images")


def jupyter():
    return _exposed("Jupyter", exposure.jupyter())


def tensorboard():
    return _exposed("TensorBoard", exposure.tensorboard())


def _exposed(name, found):
    lines = [Line("problem", text) for text in found]
    return lines or [Line("ok", f"{name}: nothing that lets others in")]


def driver():
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total"]
    command.append("--format=csv,noheader")
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        yield Line("ok", "no NVIDIA driver: the CPU trains")
    except subprocess.TimeoutExpired:
        yield Line("problem", "nvidia-smi does not answer: the driver hangs; restart the machine")
    else:
        said = "; ".join((asked.stdout + asked.stderr).strip().splitlines())
        if asked.returncode:
            yield Line("problem", f"nvidia-smi fails ({said}); repair the driver first")
        else:
            yield Line("ok", f"NVIDIA's driver sees {said}")


def asked_apart(data_dir):
    """Ask for what needs TensorFlow: the shards, the devices, and whether they compute alike."""
    context = multiprocessing.get_context("spawn")
    answers, asked = context.Pipe(duplex=False)
    process = context.Process(target=_ask_tensorflow, args=(data_dir, asked), daemon=True)
    process.start()
    asked.close()  # here: so that the process's end is that of the answers
    end, doing = time.monotonic() + SECONDS, "starting"
    try:
        while answers.poll(max(0, end - time.monotonic())):
            found = answers.recv()
            if isinstance(found, Line):
                yield found
            else:
                doing = found
        process.kill()
        yield Line("problem", f"{doing} was not done in {SECONDS} s; {REMEDY}")
    except EOFError:
        process.join()
        if process.exitcode:
            yield Line("problem", f"{doing} ended the process ({process.exitcode}); {REMEDY}")


def _ask_tensorflow(data_dir, answers):
    """Send Lines, and before what may hang or crash its name."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # TensorFlow's chatter
    answers.send("loading TensorFlow")
    try:
        answers.send(shards(data_dir))
        for found in _computing():
            answers.send(found)
    except Exception as error:
        remedy = "; make setup" if isinstance(error, ImportError) else ""
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{remedy}"
        answers.send(Line("problem", text))


def _computing():
    import tensorflow as tf

    from kit.doctor import replicas
    from kit.training import strategy

    devices = tf.config.list_physical_devices("GPU")
    cards = [tf.config.experimental.get_device_details(gpu) for gpu in devices]
    there = gpus.present()
    lacked = [] if cards or not there else gpus.missing()
    build = tf.sysconfig.get_build_info()
    for verdict in gpus.verdicts(cards, build, present=there, missing=lacked):
        yield Line(*verdict)
    if not devices:
        strategy.logical_cpus(2)
    names = replicas.devices()
    count, called = len(names), ", ".join(names)
    if count > 1:
        yield f"an all-reduce over {called}"
        sums = replicas.sum_of_ones(count)
        text = f"an all-reduce of ones over {called} gives"
        if sums == [[count]] * count:
            yield Line("ok", f"{text} {count} on each")
        else:
            yield Line("problem", f"{text} {sums}, not {count} on each; {REMEDY}")
    for how, others, difference in (
        ("", "one device's", replicas.difference),
        (" through XLA", "those without", replicas.xla_difference),
    ):
        yield f"training two steps{how} on {called}"
        apart = difference(count)
        text = f"two training steps{how} on {called} equal {others} to {apart:.0e} of the largest"
        if apart <= replicas.TOLERANCE:
            yield Line("ok", f"{text} weight")
        else:
            yield Line("problem", f"{text} weight, not to {replicas.TOLERANCE:.0e}; {REMEDY}")
