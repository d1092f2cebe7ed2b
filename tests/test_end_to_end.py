"""The notebooks as a user runs them in batch, small; and the demonstration itself, slow."""

import csv
import json
import shutil
import subprocess
import sys
import time

import keras
import nbformat
import pytest

from kit import ROOT
from kit.evaluation.comparison import read_predictions
from kit.inference.classifier import Classifier
from tests.images import class_folders, jpeg
from tests.small_training import history

SMALL = {
    "stage_sizes": "[1, 1, 1, 1]",
    "image_size": "32",
    "resize_side": "37",
    "batch_size": "6",
    "epochs": "2",
    "train_shards": "2",
    "validation_shards": "1",
    "latency_runs": "3",
    "measured_seconds": "0.1",
    "decay_epochs": "[1]",
    "warmup_epochs": "1",
    "quarantine_budget": "0.1",
}


def kit_run(*arguments, **parameters):
    given = [part for item in parameters.items() for part in ("-p", *item)]
    return subprocess.run(
        [sys.executable, "-m", "kit", "run", *arguments, *given],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def own_photographs(tmp_path_factory):
    """A run over somebody's own folder, with a photograph among them that cannot be read."""
    root = tmp_path_factory.mktemp("own")
    raw_dir = class_folders(root / "raw", classes=2, images=12)
    for number, path in enumerate(sorted(raw_dir.glob("*/*.jpg")), start=1):
        path.rename(path.with_name(f"ILSVRC2012_val_{number:08d}.JPEG"))  # for ReaL's labels
    (raw_dir / "class0" / "broken.jpg").write_bytes(jpeg(48, 64)[:500])
    folders = {
        "raw_dir": str(raw_dir),
        "data_dir": str(root / "data"),
        "run_dir": str(root / "run"),
    }
    done = kit_run("--recipe", "folder", **folders, **SMALL)
    assert done.returncode == 0, done.stderr
    return root, done


def test_a_folder_becomes_a_model_and_its_numbers(own_photographs):
    root, _ = own_photographs
    evaluation = json.loads((root / "run" / "evaluation.json").read_text())
    assert evaluation["images"] == 2  # a tenth of each class, one at the least
    assert {"value", "low", "high"} <= set(evaluation["top1"])
    assert json.loads((root / "run" / "latency.json").read_text())["total"]["p50"] > 0
    assert json.loads((root / "run" / "throughput.json").read_text())["images_per_second"]["real"]
    with (root / "run" / "history.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    share = 6 / 32  # of the batch that the rates of params.yaml are for
    assert rates == pytest.approx([0.0167 * share, 0.1 * 0.05 * share])
    model = keras.saving.load_model(root / "run" / "model.keras", compile=False)
    assert model.output_shape == (None, 2)


def test_the_unreadable_photograph_is_set_aside_and_counted(own_photographs):
    root, _ = own_photographs
    manifest = json.loads((root / "data" / "manifest.json").read_text())
    (broken,) = manifest["quarantined"]
    assert broken["file"].endswith("broken.jpg")
    assert sum(split["images"] for split in manifest["splits"].values()) == 24


def test_the_run_leaves_its_record(own_photographs):
    root, done = own_photographs
    executed = sorted((root / "run" / "notebooks").iterdir())
    assert [path.stem[:2] for path in executed] == ["01", "02", "03", "04", "05"]
    for path in executed:
        cells = nbformat.read(path, as_version=4).cells
        assert any("injected-parameters" in cell.metadata.get("tags", []) for cell in cells)
    assert json.loads((root / "run" / "params.json").read_text())["image_size"] == 32
    report = (root / "run" / "report.html").read_text()
    assert report.count("data:image/png;base64") >= 10
    figures = ("loss", "cross_entropy", "l2_loss", "accuracy", "confusion", "latency", "waterfall")
    for figure in figures:
        assert (root / "run" / "figures" / f"{figure}.png").stat().st_size > 5000
    assert "report.html" in done.stdout and "top-1" in done.stdout


def test_the_trained_model_classifies_a_photograph(own_photographs):
    root, _ = own_photographs
    answer = Classifier.from_run_dir(root / "run").classify(jpeg(60, 60), top_k=2)
    assert {name for name, _ in answer} == {"class0", "class1"}
    assert sum(share for _, share in answer) == pytest.approx(1, abs=1e-5)


def test_the_last_notebook_adds_to_what_those_before_it_wrote(own_photographs):
    run_dir = own_photographs[0] / "run"
    assert len(read_predictions(run_dir)) == 2  # which compare_with reads
    assert (run_dir / "photos.csv").read_text().startswith("photo,problem,label_1,name_1")
    card = (run_dir / "model_card.md").read_text()
    assert "`export/saved_model` (saved_model): differs from Keras by" in card
    assert "ms for an image" in card and "95 % interval" in card


def test_one_photograph_is_classified_by_the_last_notebook_alone(own_photographs, tmp_path):
    root, _ = own_photographs
    (tmp_path / "mine.png").write_bytes(jpeg(50, 50))
    folders = {"data_dir": str(root / "data"), "run_dir": str(root / "run")}
    done = kit_run("--only", "04", photos=str(tmp_path / "mine.png"), latency_runs="2", **folders)
    assert done.returncode == 0, done.stderr
    assert "files: 1, the first: mine.png" in done.stdout


def test_other_labels_other_images_and_another_run_are_evaluated_too(own_photographs, tmp_path):
    root, _ = own_photographs
    shutil.copytree(root / "run", tmp_path / "run")
    (tmp_path / "real.json").write_text(json.dumps([[0]] * 12 + [[1]] * 12))
    others = class_folders(tmp_path / "others", classes=2, images=2)
    for label in range(2):
        (others / f"class{label}").rename(others / str(label))  # as in ImageNet-V2
    folders = {"data_dir": root / "data", "run_dir": tmp_path / "run", "other_images": others}
    folders |= {"real_labels": tmp_path / "real.json", "compare_with": root / "run"}
    given = {name: str(path) for name, path in folders.items()}
    done = kit_run("--recipe", "folder", "--only", "03", **given, test_sizes="[32, 40]")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert found["real"]["top1"] == found["top1"]
    assert found["other_images"]["images"] == 4
    assert (
        found["comparison"] | {"only_ours": 0, "only_theirs": 0, "p_value": 1}
        == found["comparison"]
    )
    assert [row["image_size"] for row in found["test_sizes"]] == [32, 40]
    card = (tmp_path / "run" / "model_card.md").read_text()
    assert "| ReaL |" in card and "Not measured" not in card


@pytest.mark.parametrize(
    "only, change, code, line",
    [
        ("01", {"raw_dir": "no/such/folder"}, 2, "no/such/folder does not exist"),
        ("02", {"data_dir": "no/shards"}, 2, "holds no finished shards"),
        ("03", {"run_dir": "{root}/empty"}, 1, "train a model first"),
        ("04", {"photos": "{root}/data/manifest.json"}, 1, "manifest.json ("),
    ],
)
def test_bad_input_stops_the_batch(own_photographs, tmp_path, only, change, code, line):
    root, _ = own_photographs
    shutil.copytree(root / "run", tmp_path / "run")
    folders = {"raw_dir": root / "raw", "data_dir": root / "data", "run_dir": tmp_path / "run"}
    folders = {name: str(path) for name, path in folders.items()}
    folders |= {name: value.format(root=root) for name, value in change.items()}
    done = kit_run("--recipe", "folder", "--only", only, **SMALL | folders)
    assert done.returncode == code
    last = done.stderr.rstrip().splitlines()[-1]
    assert line in last, done.stderr


def test_plain_papermill_does_the_same(own_photographs, tmp_path):
    root, _ = own_photographs
    shutil.copytree(root / "run", tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").unlink()
    command = [
        sys.executable,
        "-m",
        "papermill",
        "notebooks/03_evaluation.ipynb",
        tmp_path / "o.ipynb",
    ]
    command += ["-f", "params.yaml", "-f", "kit/recipes/folder.yaml", "--log-output"]
    command += ["-p", "data_dir", root / "data", "-p", "run_dir", tmp_path / "run"]
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True, capture_output=True)
    ours, theirs = (
        json.loads((folder / "run" / "evaluation.json").read_text()) for folder in (root, tmp_path)
    )
    assert ours == theirs


@pytest.mark.slow
def test_a_table_with_a_test_split_goes_through_all_notebooks(tmp_path):
    """The images of a group stay together, and what is kept apart is scored once, at the end."""
    raw_dir = class_folders(tmp_path / "raw", classes=2, images=12)
    rows = [("path", "label", "split", "group")]
    for label in range(2):
        for number, path in enumerate(sorted((raw_dir / f"class{label}").iterdir())):
            split = "test" if number < 3 else "train"  # of which the kit holds a part out
            rows.append((path.relative_to(raw_dir), f"kind {label}", split, number // 3))
    with (raw_dir / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    folders = {"raw_dir": raw_dir, "data_dir": tmp_path / "data", "run_dir": tmp_path / "run"}
    given = SMALL | {name: str(path) for name, path in folders.items()}
    done = kit_run("--recipe", "folder", **given | {"validation_fraction": "0.34"})
    assert done.returncode == 0, done.stderr
    splits = json.loads((tmp_path / "data" / "manifest.json").read_text())["splits"]
    assert {name: split["images"] for name, split in splits.items()} == {
        "train": 12,
        "validation": 6,
        "test": 6,
    }
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert (found["images"], found["test"]["images"]) == (6, 6)
    assert "test" in (tmp_path / "run" / "model_card.md").read_text()
    assert len(list((tmp_path / "run" / "notebooks").iterdir())) == 5


@pytest.mark.slow
def test_the_demonstration_learns_and_begins_a_second_time_with_the_same_epochs(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    done = kit_run("--recipe", "demo", "--only", "01,02,03", run_dir=str(first))
    assert done.returncode == 0, done.stderr
    assert json.loads((first / "evaluation.json").read_text())["top1"]["value"] >= 0.80
    command = [sys.executable, "-m", "kit", "run", "--recipe", "demo", "--only", "02"]
    again = subprocess.Popen([*command, "-p", "run_dir", second], cwd=ROOT)
    while again.poll() is None and not ((second / "history.csv").exists() and history(second)[1:]):
        time.sleep(0.5)
    again.terminate()
    assert again.wait(timeout=120) == 75  # interrupted, and ready to go on
    assert history(second)[:2] == history(first)[:2]
