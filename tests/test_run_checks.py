"""What stops a run before hours of work."""

from pathlib import Path

import pytest

from kit import params
from kit.runner import checks
from tests.images import class_folders
from tests.networks import network

STAGES = [1, 1, 1, 1]


def training(**overrides):
    """Check a training on two GPUs of each of three hosts."""
    p = params.load(None, overrides)
    checks.check_training(p, set(p.values) - {"photos"}, ["GPU:0", "GPU:1"], 3)


@pytest.mark.parametrize(
    "wrong, line",
    [
        ({"batch_size": 256}, "batch_size: 256 does not divide among 6 replicas"),
        ({"batch_size": 12, "repeated_augmentation": 3}, "repeated_augmentation: 3 does not div"),
    ],
)
def test_what_the_found_devices_cannot_train_is_refused_before_hours_of_preparation(wrong, line):
    training(batch_size=60)
    with pytest.raises(ValueError, match=line):
        training(**wrong)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("answers.txt", "ends neither in .csv nor in .parquet"),
        ("file/answers.csv", "cannot be written (Not a directory); name another file"),
        ("folder.csv", "cannot be written (it is a folder); name another file"),
        ("new/folder/answers.csv", None),
    ],
)
def test_a_table_that_cannot_be_written_is_refused_and_no_folder_made(tmp_path, name, reason):
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    before = sorted(tmp_path.iterdir())
    found = list(checks.problems({Path("04"): {"predictions": name}}, "runs/x", tmp_path))
    assert [reason in line for line in found] == ([True] if reason else [])
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"raw_dir": "no/such"}, "no/such does not exist; name the folder of your images"),
        ({"raw_dir": "no/such", "demo_views": 100}, None),
        ({"raw_dir": "s3://bucket/raw"}, None),
        ({"run_dir": "file"}, "file cannot be written (Not a directory); name another"),
        ({"run_dir": "file/run"}, "file/run cannot be written (Not a directory); name another"),
        ({"run_dir": "new/run"}, None),
        ({"initial_weights": "no.h5"}, "no.h5 is not there; name a file of weights, or leave it"),
        ({"photos": "file"}, None),
        ({"compare_with": "."}, "predictions.csv is not there; evaluate that run first"),
    ],
)
def test_a_path_that_cannot_be_used_is_refused(tmp_path, wrong, line):
    (tmp_path / "file").touch()
    (tmp_path / "raw").mkdir()
    values = {"raw_dir": "raw", "demo_views": 0, "run_dir": "run"} | wrong
    found = list(checks.problems({Path("01"): values}, values["run_dir"], tmp_path))
    assert [line in text for text in found] == ([True] if line else [])


def test_a_table_of_images_is_read_before_anything_starts(tmp_path):
    class_folders(tmp_path, classes=2, images=2)
    table = tmp_path / "labels.csv"
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in tmp_path.glob("*/*.jpg")]
    for raw_dir in (str(tmp_path), str(table)):
        values = {"raw_dir": raw_dir, "demo_views": 0}
        table.write_text("\n".join(["path,label", *rows]))
        assert not list(checks.problems({Path("01"): values}, "run", tmp_path))
        table.write_text("\n".join(["path,label", *rows, "gone.jpg,class0", "class0/,x"]))
        (line,) = checks.problems({Path("01"): values}, "run", tmp_path)
        assert line.startswith(f"{table}: 2 files that are not there: gone.jpg, class0/")


def test_shards_must_be_there_unless_the_first_notebook_makes_them(tmp_path):
    prepare, train = {"raw_dir": "", "demo_views": 9}, {"data_dir": str(tmp_path)}
    (line,) = checks.problems({Path("02"): train}, "run", tmp_path)
    assert "holds no finished shards: run notebook 01 first" in line
    assert not list(checks.problems({Path("01"): prepare, Path("02"): train}, "run", tmp_path))
    photos = train | {"photos": str(tmp_path)}  # which are classified in place of the shards'
    assert not list(checks.problems({Path("04"): photos}, "run", tmp_path))
    (tmp_path / "train-00000-of-00001").touch()
    assert not list(checks.problems({Path("02"): train}, "run", tmp_path))


def test_a_run_asks_the_service_before_any_notebook_starts():
    p = params.load(None, {"data_service": "grpc://localhost:1"})
    with pytest.raises(ConnectionError, match="no dispatcher answers"):
        checks.check_training(p, {"data_service"}, devices=[])


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory):
    """Files of a network of one block in each stage, for seven classes."""
    folder = tmp_path_factory.mktemp("weights")
    made = network(classes=7, stage_sizes=STAGES)
    made.save_weights(folder / "own.weights.h5")
    made.save(folder / "own.keras")
    return folder


def check_weights(path, **wrong):
    """Ask for a training of classes that nobody has counted yet, from the weights in `path`."""
    p = params.load(None, {"stage_sizes": STAGES, "initial_weights": str(path)} | wrong)
    checks.check_training(p, {"initial_weights"}, ["CPU:0"])


@pytest.mark.parametrize("name", ["own.weights.h5", "own.keras"])
def test_weights_of_this_network_pass_whatever_their_classes(name, own_weights):
    check_weights(own_weights / name)


@pytest.mark.parametrize(
    ("name", "wrong", "line"),
    [
        (
            "own.weights.h5",
            {"stage_sizes": [1, 1, 1, 2]},
            "stage4_block2_.* is missing: weights of",
        ),
        ("own.keras", {"stage_sizes": [1, 1, 2, 1]}, "stage3_block2_.* is in this network alone"),
        ("own.keras", {"resnet_version": "1"}, "stage2_block1_conv2_pad is in the file alone"),
        ("own.keras", {"blur_pool": True}, ".*_blur.* is in this network alone"),
        ("own.keras", {"channel_means": [1.0, 2.0, 3.0]}, "channel_means: .* are not those of the"),
    ],
)
def test_weights_of_another_network_stop_a_run_before_its_images_are_prepared(
    name, wrong, line, own_weights
):
    with pytest.raises(ValueError, match=f"^initial_weights: .*{name}: {line}") as caught:
        check_weights(own_weights / name, **wrong)
    assert "\n" not in str(caught.value)


def test_what_holds_no_weights_is_refused(tmp_path):
    (tmp_path / "resnet50.h5").touch()
    with pytest.raises(ValueError, match="^initial_weights: .*resnet50.h5: no weights can be read"):
        check_weights(tmp_path / "resnet50.h5")
