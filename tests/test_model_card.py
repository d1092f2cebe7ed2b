import csv
import json
import os

import numpy as np
import pytest

from kit import params
from kit.evaluation import calibration, comparison, model_card, scores
from kit.inference import latency
from kit.training.trainer import model_metadata
from tests.images import MANIFEST

PARAMETERS = params.load(
    overrides={"image_size": 160, "evaluation_size": 192, "learning_rate": 0.5}
).values
HISTORY = [
    {"epoch": 0, "loss": 6.5, "val_top1": 0.25, "images_per_second": 10},
    {"epoch": 1, "loss": 4.25, "val_top1": 0.5, "images_per_second": 1234.5},
    {"epoch": 2, "loss": 3.125, "val_top1": 0.375, "images_per_second": 1200},
]
RECIPE = [  # the headings of recipe_resnet50_imagenet.md from its first section on
    "## Data",
    "### Raw data",
    "#### Description",
    "#### Path",
    "### Data Processing Methods",
    "#### Description",
    "#### Code",
    "#### Path",
    "## Training",
    "### Optimization Methods",
    "#### Description",
    "#### Code",
    "#### Hyperparameters",
    "#### Dynamics",
    "#### Outputs",
    "### Performance metrics",
    "#### Target metrics",
    "#### Code",
    "## Inference",
    "#### Code",
    "#### Timing information",
    "#### Serialization",
    "## Miscellaneous",
]


def write(path, values):
    path.write_text(json.dumps(values))


@pytest.fixture
def run_dir(tmp_path):
    manifest = MANIFEST | {"source": "photos/raw", "layout": "split folders"}
    write(tmp_path / "model.json", model_metadata(manifest, PARAMETERS) | {"sha256": "a"})
    return tmp_path


def evaluated(run_dir, images=300):
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(6, size=images), rng.normal(0, 2, (images, 6)).astype("float32")
    results = scores.evaluate(labels, logits, MANIFEST["classes"])
    results["shards"], results["model"] = MANIFEST["fingerprint"], "a"
    results["calibration"] = calibration.calibrate(labels, logits)
    right = logits.argmax(axis=1) == labels
    results["views"] = {"flip": scores.summarise(labels, logits)}
    results["comparison"] = {"compare_with": "runs/x"} | comparison.compare(right, ~right)
    write(run_dir / "evaluation.json", results)
    return results


def card(run_dir):
    return model_card.write_card(run_dir).read_text(encoding="utf-8")


def test_the_sections_are_the_recipes_in_its_order(run_dir):
    headings = [line for line in card(run_dir).splitlines() if line.startswith("##")]
    assert headings == RECIPE
    evaluated(run_dir)
    assert [line for line in card(run_dir).splitlines() if line.startswith("##")] == RECIPE


def test_what_is_not_known_is_said(run_dir):
    text = card(run_dir)
    for line in ("No history.csv.", "Not evaluated since", "Not timed since", "Nothing is known"):
        assert line in text


def test_the_data_and_the_parameters_are_those_of_the_training(run_dir):
    text = card(run_dir)
    assert "8 training images of 6 classes; layout: split folders." in text
    assert "`photos/raw`" in text and "Each image is stored at short side 48." in text
    assert "trained on 160 x 160 crops" in text
    assert "| `learning_rate` | 0.5 | 0.1 |" in text
    assert "| `momentum` | 0.9 |  |" in text
    assert "`run_dir`" not in text


def test_the_training_is_told_from_its_history(run_dir):
    with (run_dir / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, HISTORY[0])
        writer.writeheader()
        writer.writerows(HISTORY)
    (run_dir / "figures").mkdir()
    (run_dir / "figures" / "loss.png").touch()
    text = card(run_dir)
    assert "3 epochs. Training loss 6.500 in the first and 3.125 in the last, at 1,200" in text
    assert "top-1 37.5% after the last; the highest was 50.0%, after epoch 2." in text
    assert "![loss](figures/loss.png)" in text and "figures/accuracy.png" not in text


def test_the_accuracies_are_those_of_the_evaluation(run_dir):
    results = evaluated(run_dir)
    text = card(run_dir)
    top1 = results["top1"]
    row = f"{top1['value']:.1%} | {top1['low']:.1%} to {top1['high']:.1%} | 300 |"
    assert f"| top-1 | {row}" in text and f"| top-1, flip | {row}" in text
    worst = min(results["per_class"], key=lambda row: row["top1"])
    assert f"{worst['precision']:.1%} | {worst['f1']:.1%} |" in text
    assert "a single 192 x 192 centre crop" in text
    found = results["calibration"]
    assert f"temperature {found['temperature']:.2f}, fitted on 150 of the images" in text
    assert f"Less `runs/x`: {results['comparison']['difference']:+.2%}" in text
    assert "Not measured: ReaL, other images." in text


def test_an_evaluation_that_measured_less_has_a_shorter_card(run_dir):
    results = evaluated(run_dir)
    for name in ("calibration", "comparison", "views"):
        del results[name]
    write(run_dir / "evaluation.json", results)
    text = card(run_dir)
    assert "Not measured: ReaL, other images, against another run." in text
    assert "calibration error" not in text and "top-1, flip" not in text and "Less" not in text


def test_an_evaluation_on_other_shards_is_said_to_be_one(run_dir):
    results = evaluated(run_dir)
    assert "other shards" not in card(run_dir)
    write(run_dir / "evaluation.json", results | {"shards": "of other images"})
    assert "Evaluated on other shards than it was trained on." in card(run_dir)


def test_a_measurement_of_another_model_is_left_out_whatever_the_clock_says(run_dir):
    evaluated(run_dir)
    times = {"OpenVINO": np.full([50, 3], 12.34), "LiteRT": np.full([50, 3], 15.0)}
    write(run_dir / "latency.json", latency.summarise(times, image_size=224) | {"model": "a"})
    for name in ("latency.json", "evaluation.json"):
        os.utime(run_dir / name, (1e9, 1e9))
    text = card(run_dir)
    assert "OpenVINO: median 12.3 ms" in text and "Averages over the classes: balanced" in text
    model = json.loads((run_dir / "model.json").read_text())
    write(run_dir / "model.json", model | {"sha256": "b"})
    text = card(run_dir)
    assert "Not timed since" in text and "Not evaluated since" in text


def test_a_test_split_has_numbers_of_its_own(run_dir):
    results = evaluated(run_dir)
    assert "test split" not in card(run_dir)
    write(run_dir / "evaluation.json", results | {"test": evaluated(run_dir, images=123)})
    text = card(run_dir)
    assert "| top-1, test split |" in text and "The 123 images of the test split: balanced" in text


def test_a_model_of_which_nothing_is_told_has_no_card(run_dir):
    write(run_dir / "model.json", {"classes": [], "image_size": 224})
    with pytest.raises(ValueError, match="model.json lacks data, parameters, training_size: train"):
        model_card.write_card(run_dir)


def test_exports_of_this_model_are_listed_with_what_their_checks_found(run_dir):
    model = json.loads((run_dir / "model.json").read_text())
    write(run_dir / "model.json", model | {"sha256": "a"})
    cost = comparison.compare(np.array([True, False] * 50), np.array([True, True] * 50))
    (run_dir / "export").mkdir()
    for name, form, sha256, checks in (
        ("model.onnx", "onnx", "a", {"max_difference": 2e-6, "agreement": 1.0}),
        ("int8.tflite", "litert_int8", "a", {"cost": cost | {"agreement": 0.5}}),
        ("saved_model", "saved_model", "of another training", {"max_difference": 1e-6}),
    ):
        (run_dir / "export" / name).touch()
        write(
            run_dir / "export" / f"{name}.json",
            {"form": form, "sha256": sha256} | {"checks": {"max_difference": 0.3} | checks},
        )
    text = card(run_dir)
    assert "`export/model.onnx` (onnx): differs from Keras by 2.0e-06 at most." in text
    assert "`export/int8.tflite` (litert_int8): same answer as Keras for 50.0% of 100" in text
    assert "top-1 -50.00% of 100 images, 95 % interval" in text
    assert "export/saved_model" not in text


def test_names_are_shown_as_they_are_and_not_as_markdown(tmp_path):
    odd = {"source": "photos/`*odd*`", "layout": "<b>folders</b>"}
    model = model_metadata(MANIFEST | odd, PARAMETERS | {"data_dir": "a`b"})
    write(tmp_path / "model.json", model)
    text = card(tmp_path)
    assert "`` photos/`*odd*` ``" in text and "`` a`b ``" in text
    assert "layout: \\<b\\>folders\\</b\\>." in text


def test_model_that_an_older_kit_has_trained_has_a_card(run_dir):
    model = json.loads((run_dir / "model.json").read_text())
    card(run_dir)  # which is then among the files that it names
    expected = card(run_dir)
    model["version"] = model.pop("resnet_version")
    for old, new in (("version", "resnet_version"), ("test_size", "evaluation_size")):
        model["parameters"][old] = model["parameters"].pop(new)
    model["data"]["mended"] = model["data"].pop("reencoded", 0)
    write(run_dir / "model.json", model)
    assert sorted(card(run_dir).splitlines()) == sorted(expected.splitlines())


def test_what_the_last_run_had_is_named(run_dir):
    environment = {"packages": {"keras": "3.15.1"}, "devices": ["GPU:0 Tesla"]}
    write(run_dir / "environment.json", environment | {"git": {"commit": "abc", "dirty": False}})
    assert "this folder had keras 3.15.1, GPU:0 Tesla, commit `abc`." in card(run_dir)
    write(run_dir / "params.json", {"demo_views": 1000})
    assert "views of ten photographs" in card(run_dir)
