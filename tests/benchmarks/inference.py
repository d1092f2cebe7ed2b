"""Inference: one image at a time, from its JPEG's bytes to probabilities, in every format.

A ResNet-50 of 1,000 classes at 224 px, on a mix like ImageNet's. The kit's forms, Keras'
`model.predict`, and PyTorch's eager forward pass behind Pillow, as a user would write it, take
turns. Ours and theirs are milliseconds of a round, preprocessing included but in int8_vs_fp32: less
is better. Writes runs/bench/latency.json and figures/latency.png, throughput.png beside it.
PyTorch's memory in channels_last order is timed too, and stands in the table of forms.

What int8 costs in accuracy is measured of a trained model, on the validation images of its data:
make bench PART=inference RUN_DIR=runs/mine DATA_DIR=data/mine
"""

import importlib.util
import io
import json
import os
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
from bench import RESULTS
from PIL import Image
from ways.photographs import photographs

from kit import params, plots
from kit.evaluation import tables
from kit.files import write_json
from kit.inference import export, latency
from kit.inference.classifier import Classifier, load_model
from kit.inference.formats import FORMATS
from kit.model.resnet import resnet50

RUNS, CALIBRATION, SIDE, RESIZE_SIDE = 200, 64, 224, 256
MEANS = [123.68, 116.779, 103.939]
PREPROCESSING, FORWARD, TOTAL = range(3)  # columns of latency.time_in_turns
FLOAT32 = ("tf.function", "SavedModel", "ONNX Runtime", "OpenVINO", "LiteRT")
CPU = ("ONNX Runtime", "OpenVINO", "OpenVINO bf16", "LiteRT", "LiteRT int8")
MARKS = {
    "best_vs_predict": 0.1,
    "fp32_vs_torch": 0.6,
    "preprocess_share": 0.1,
    "int8_vs_fp32": 0.35,
}


def measure() -> dict:
    """Give the figures' rounds in milliseconds; what cannot be had here is left out, and said."""
    photos = photographs(RUNS)
    with tempfile.TemporaryDirectory() as run_dir:
        export_network(Path(run_dir), photos)
        backends, problems = latency.backends(run_dir)
    print(*problems, sep="\n")
    backends |= torch_backends()
    times = latency.time_in_turns(backends, photos, latency_runs=RUNS)
    measured = latency.summarise(times, image_size=SIDE)
    image = backends["tf.function"][0]
    pixels = np.stack([image(photo) for photo in photos[:32]])
    ours = {name: way for name, way in backends.items() if not name.startswith("PyTorch")}
    measured["throughput"] = latency.throughput(ours, pixels)
    cost = int8_cost(os.environ.get("RUN_DIR"), os.environ.get("DATA_DIR"))
    measured["int8"] = cost
    write_json(RESULTS.parent / "latency.json", measured)
    plots.save(plots.latency(measured), RESULTS.parent, "latency")
    figure = plots.batch_throughput(measured["throughput"], measured["device"])
    plots.save(figure, RESULTS.parent, "throughput")
    show(measured)
    figures = compare(times)
    if cost:
        found = {"ours": [cost["top1"]], "theirs": [cost["original_top1"]]}
        figures["int8_accuracy"] = found | {"mark": None, "unit": "top-1"}
    return figures


def export_network(run_dir, photos):
    """Write a ResNet-50 into run_dir, and every form of it; its weights are random."""
    keras.utils.set_random_seed(0)
    model = resnet50(params.load(None, {"batch_norm_momentum": 0.5}).network, classes=1000)
    classes = [{"wnid": f"n{number}", "name": f"class {number}"} for number in range(1000)]
    metadata = {"classes": classes, "image_size": SIDE, "resize_side": RESIZE_SIDE}
    image = Classifier.from_model(model, metadata).image
    pixels = np.stack([image(photo) for photo in photos[:CALIBRATION]])
    for start in range(0, CALIBRATION, 16):  # statistics of real activations, as after training
        model(pixels[start : start + 16].astype("float32"), training=True)
    model.save(run_dir / "model.keras")
    (run_dir / "model.json").write_text(json.dumps(metadata))
    for form in FORMATS:
        try:
            export.export_all(run_dir, [form], calibration=pixels)
        except ValueError as error:
            print(f"{form} is left out: {error}")


def int8_cost(run_dir, data_dir) -> dict:
    """Give what `export.cost` finds of the model of run_dir in int8; {} unless both are given."""
    if not (run_dir and data_dir):
        print("RUN_DIR and DATA_DIR name no trained model, so what int8 costs it is missing")
        return {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("model.keras", "model.json"):
            shutil.copy(Path(run_dir) / name, folder)
        metadata = load_model(folder)[1]
        calibration, validation = export.int8_images(
            data_dir, metadata, calibration_images=params.load().export.calibration_images
        )
        [record] = export.export_all(
            folder, ["litert_int8"], calibration=calibration, validation=validation
        )
    return record["cost"] | {"image_size": metadata["image_size"]}


def torch_backends() -> dict:
    """Give PyTorch's eager forward pass behind Pillow, {name: (image, forward)}."""
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed, so its lines are missing")
        return {}
    import torch
    from ways.torch_resnet import resnet50 as torch_resnet50

    means = torch.tensor(MEANS).reshape(3, 1, 1)

    def image(photo):
        picture = Image.open(io.BytesIO(photo)).convert("RGB")
        scale = RESIZE_SIDE / min(picture.size)
        picture = picture.resize([round(side * scale) for side in picture.size], Image.BILINEAR)
        left, top = ((side - SIDE) // 2 for side in picture.size)
        pixels = np.array(picture.crop((left, top, left + SIDE, top + SIDE)))
        return (torch.from_numpy(pixels).permute(2, 0, 1).float() - means).contiguous()

    def way(memory_format):
        model = torch_resnet50(1000).eval().to(memory_format=memory_format)

        def forward(pixels):
            with torch.inference_mode():
                pixels = pixels.contiguous(memory_format=memory_format)
                return torch.softmax(model(pixels), dim=1).numpy()

        return image, forward

    return {
        "PyTorch eager": way(torch.contiguous_format),
        "PyTorch eager, channels last": way(torch.channels_last),
    }


def compare(times) -> dict:
    """Give the figures, a round being the median of a turn of photographs."""
    rounds = {
        name: np.median(rows.reshape(-1, latency.TURN, len(latency.STAGES)), axis=1).T
        for name, rows in times.items()
    }

    def fastest(names):
        known = [name for name in names if name in rounds]
        return rounds[min(known, key=lambda name: np.median(times[name][:, TOTAL]))]

    quick = fastest(FLOAT32)
    found = {
        "best_vs_predict": (fastest(CPU)[TOTAL], rounds["model.predict"][TOTAL]),
        "preprocess_share": (quick[PREPROCESSING], quick[TOTAL]),
    }
    for name, ours, theirs, stage in (
        ("fp32_vs_torch", quick, rounds.get("PyTorch eager"), TOTAL),
        ("int8_vs_fp32", rounds.get("LiteRT int8"), rounds.get("LiteRT"), FORWARD),
    ):
        if ours is not None and theirs is not None:
            found[name] = ours[stage], theirs[stage]
    return {
        name: {"ours": list(ours), "theirs": list(theirs), "mark": MARKS[name], "unit": "ms"}
        for name, (ours, theirs) in found.items()
    }


def show(measured) -> None:
    stages = [f"{stage} p50" for stage in latency.STAGES]
    print(f"{measured['device']:<30}" + "".join(f"{text:>18}" for text in [*stages, "p90", "p99"]))
    for name, form in measured["forms"].items():
        times = [form[stage]["p50"] for stage in latency.STAGES]
        times += [form["total"][mark] for mark in ("p90", "p99")]
        print(f"{name:<30}" + "".join(f"{value:18.2f}" for value in times))
    for name, rates in measured["throughput"].items():
        text = ", ".join(f"{rate:.1f} at {batch}" for batch, rate in rates.items())
        print(f"{name}: images/s {text}")
    if cost := measured["int8"]:
        print(f"int8 at {cost['image_size']} px: as float32 for {cost['agreement']:.1%},", end=" ")
        print(f"top-1 {cost['top1']:.1%} for {cost['original_top1']:.1%}:", tables.compared(cost))
