"""The published recipes: read, checked, and each trained for two epochs as its notebook does it."""

import json
import math
import os
import re
import signal
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from kit import __main__, params, signals
from kit.data.manifest import read_manifest
from kit.evaluation import compatibility, predictions, scores
from kit.inference import classifier, export, formats
from kit.pipeline import dataset
from kit.prep import demo
from tests.images import prepare
from tests.networks import network
from tests.small_training import history

RECIPES = sorted(path.stem for path in params.RECIPES.glob("*.yaml"))
PUBLISHED = sorted({*RECIPES} - {"demo", "folder"})
each = pytest.mark.parametrize("name", PUBLISHED)


def test_every_recipe_that_was_promised_is_there():
    assert (
        sorted(
            ["paper_steps", "tf_official_90", "nvidia_90", "nvidia_250", "fast_16", "fast_40"]
            + ["rsb_a3", "rsb_a2", "rsb_a1", "torchvision_v2", "finetune", "imagenette"]
        )
        == PUBLISHED
    )


@each
def test_a_recipe_says_where_it_is_from_and_what_it_reached(name):
    text = (params.RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    head = text[: text.index("run_dir")]
    assert "# Source: " in head and "# Hardware: " in head
    if name not in ("finetune", "imagenette"):  # weights, and ten classes
        p = params.load(name)
        ((epoch, lowest, highest),) = p.monitoring.expected_top1
        assert epoch == p.schedule.epochs
        published = re.search(r"^# Published: (\d\d(?:\.\d+)?)(?: to (\d\d))? %", head, re.M)
        assert all(lowest <= float(end) / 100 <= highest for end in published.groups() if end)
        assert highest - lowest <= 0.02


def test_imagenettes_bands_hold_what_was_measured_and_what_is_published():
    bands = {epoch: band for epoch, *band in params.load("imagenette").monitoring.expected_top1}
    measured = {10: 0.60, 40: 0.79, 60: 0.87, 80: 0.906}
    assert bands.keys() == measured.keys()
    for epoch, top1 in measured.items():
        assert bands[epoch][0] < top1 < bands[epoch][1]
    assert bands[80][1] > 0.9378


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_passes_its_own_checks(name):
    params.load(name)


@pytest.mark.parametrize(
    ("name", "epoch", "rate"),
    [  # of the sources' own formulas, by hand
        ("tf_official_90", 2.5, 0.2),  # half of the warm-up to 0.1 * 1024 / 256
        ("tf_official_90", 30, 0.04),
        ("nvidia_90", 0, 2.048 / 8),
        ("nvidia_90", 7, 2.048),
        ("fast_16", 0, 1.7e-4),
        ("fast_16", 9, 0.85),  # half of the way from epoch 2 to 16
        ("rsb_a3", 0, 1e-4),
        ("rsb_a3", 50, (8e-3 + 1e-6) / 2),  # timm's wave begins at epoch 0
        ("rsb_a1", 300, (5e-3 * 2064 / 2048 + 1e-6 * 2064 / 2048) / 2),
        ("torchvision_v2", 0, 5e-3),  # a hundredth of the rate
        ("torchvision_v2", 302.5, 0.25),
    ],
)
def test_the_rate_is_that_of_the_source(name, epoch, rate):
    assert params.load(name).schedule.rate(epoch) == pytest.approx(rate, rel=1e-6)


def test_the_average_of_torchvision_forgets_as_fast_as_its_own():
    p = params.load("torchvision_v2")
    every = 32  # steps, of its --model-ema-steps
    alpha = (1 - 0.99998) * p.schedule.batch_size * every / p.schedule.epochs
    assert p.optimizer.ema_decay == pytest.approx((1 - alpha) ** (1 / every), abs=5e-7)


SMALL = {
    "image_size": 32,
    "resize_side": 37,
    "stage_sizes": [1, 1, 1, 1],
    "replicas": 2,
    "deterministic": True,
    "epochs": 2,
    "steps_per_epoch": 3,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The demonstration set, small, and weights of another set's network to start from."""
    root = tmp_path_factory.mktemp("recipes")
    demo.make_demo(raw_dir=root / "raw", demo_views=80, seed=0)
    prepare(root / "raw", root / "shards", subset=True)
    own = network(classes=3, stage_sizes=[1, 1, 1, 1])
    own.save_weights(root / "own.weights.h5")
    return root


def small(name, root):
    """Give what a test changes in a recipe: sizes and lengths, none of what the recipe is for."""
    values = params.load(name).values
    given = SMALL | {"data_dir": str(root / "shards"), "run_dir": str(root / name)}
    given["batch_size"] = 4 * values["repeated_augmentation"]
    given["warmup_epochs"] = min(1, values["warmup_epochs"])
    if values["training_sizes"]:
        given["training_sizes"] = [[0, 32], [1, 64]]
    if values["schedule"] == "steps":
        given["decay_epochs"] = [1]
    if values["evaluation_size"]:
        given |= {"evaluation_size": 64, "resize_side": 73}
    if values["initial_weights"]:
        given["initial_weights"] = str(root / "own.weights.h5")
    return given


def kit_run(name, given):
    """Run notebook 02 with the recipe as `python -m kit run` does; give its exit code."""
    texts = [value if isinstance(value, str) else json.dumps(value) for value in given.values()]
    pairs = [part for pair in zip(given, texts, strict=True) for part in ("-p", *pair)]
    return __main__.main(["run", "--recipe", name, "--only", "02", *pairs])


def trained(name, root):
    """Give the run_dir of two epochs, which an earlier test may have trained."""
    if not (root / name / "model.keras").exists():
        assert kit_run(name, small(name, root)) == 0
    return root / name


@pytest.mark.slow
@each
def test_two_epochs_under_two_replicas_leave_the_model_that_was_validated(name, root, capsys):
    given = small(name, root)
    assert kit_run(name, given) == 0, capsys.readouterr().err
    rows = history(Path(given["run_dir"]))
    assert len(rows) == 2
    assert all(math.isfinite(float(row["loss"])) for row in rows)
    assert ("the last layer, which starts anew" in capsys.readouterr().out) == (name == "finetune")
    model, metadata = classifier.load_model(given["run_dir"])
    manifest = read_manifest(given["data_dir"])
    compatibility.check_model(model, metadata)
    compatibility.check_data(metadata, manifest)
    sizes = {side: metadata[side] for side in ("image_size", "resize_side")}
    validation = dataset.evaluation_dataset(
        data_dir=given["data_dir"], split="validation", batch_size=given["batch_size"], **sizes
    )
    images = manifest["splits"]["validation"]["images"]
    labels, logits = predictions.predict(model, validation, images=images)
    found = scores.evaluate(labels, logits, metadata["classes"])
    tolerance = 1e-4 if metadata["precision"] == "float32" else 0.03
    expected = float(rows[-1]["val_cross_entropy"])
    assert found["cross_entropy"] == pytest.approx(expected, rel=tolerance)


@pytest.mark.slow
def test_a_recipes_exported_model_gives_the_probabilities_of_its_own(root):
    run_dir = trained("torchvision_v2", root)
    (exported,) = export.export_all(run_dir, ["saved_model"])
    model, metadata = classifier.load_model(run_dir)
    side = metadata["image_size"]
    shown = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), dtype="uint8")
    expected = keras.ops.softmax(model(shown, training=False))
    found = formats.load(exported["path"], runtime="tensorflow")(shown)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def cut(run_dir):
    """Ask this process to end as soon as a checkpoint is in `run_dir`."""
    give_up = time.monotonic() + 300
    while not list(Path(run_dir).glob("checkpoints/newest/*.index")):
        if time.monotonic() > give_up:
            return
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rsb_a1", "torchvision_v2", "fast_16"])
def test_a_recipe_that_is_cut_ends_as_the_one_that_was_not(name, root, capsys):
    whole = trained(name, root)
    given = small(name, root) | {"run_dir": str(root / "cut" / name), "checkpoint_minutes": 1e-9}
    watch = threading.Thread(target=cut, args=[given["run_dir"]])
    watch.start()
    assert kit_run(name, given) == signals.PREEMPTED, capsys.readouterr().err
    watch.join()
    assert kit_run(name, given) == 0, capsys.readouterr().err
    assert "goes on after step" in capsys.readouterr().err
    assert history(Path(given["run_dir"])) == history(whole)
    models = [classifier.load_model(run_dir)[0] for run_dir in (given["run_dir"], whole)]
    for ours, theirs in zip(*[model.get_weights() for model in models], strict=True):
        np.testing.assert_array_equal(ours, theirs)
