import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kit.evaluation import other_data, test_time_augmentation
from kit.pipeline import dataset
from tests.images import class_folders, jpeg, png, prepare

NAMES = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 7)]
REAL = [[3], [0, 2], [], [1], [2], [0]]
CLASSES = [{"wnid": f"class{label}", "name": f"thing {label}"} for label in range(12)]


ORIGINAL = {"store_short_side": 0, "store_quality": 90}


def as_its_authors_score(real, files, predictions):
    """The example in the README of google-research/reassessed-imagenet, in its own steps."""
    by_file = {f"ILSVRC2012_val_{i + 1:08d}.JPEG": labels for i, labels in enumerate(real)}
    pairs = [(by_file[file], one) for file, one in zip(files, predictions, strict=True)]
    return np.mean([one in labels for labels, one in pairs if labels])


def test_class_folders_are_compared_as_their_names_look(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    for name in (nfd, "tea"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"")
    found = other_data.read_folder(tmp_path, classes=[{"wnid": nfc}, {"wnid": "tea"}])
    assert found == [(f"{tmp_path}/{nfd}/1.jpg", 0), (f"{tmp_path}/tea/1.jpg", 1)]


def test_real_is_scored_as_by_its_authors_whatever_the_order_of_the_images():
    order = [4, 0, 5, 2, 1, 3]
    files = [NAMES[place] for place in order]
    labels = np.array([3, 0, 0, 1, 2, 0])[order]
    predictions = np.array([3, 2, 1, 0, 2, 0])[order]
    found = other_data.score_real(REAL, files, labels, predictions)
    assert (found["images"], found["without_label"]) == (5, 1)
    assert found["top1"]["value"] == as_its_authors_score(REAL, files, predictions) == 0.8


def test_a_part_of_imagenets_images_can_be_scored():
    found = other_data.score_real(REAL, NAMES[3:5], np.array([1, 2]), np.array([0, 2]))
    assert found["top1"]["correct"] == 1 and found["images"] == 2


def test_labels_of_another_order_of_classes_are_refused():
    shifted = [[label + 1 for label in labels] for labels in REAL]
    with pytest.raises(ValueError, match="0 of 5 images have their own label there"):
        other_data.score_real(shifted, NAMES, np.array([3, 0, 0, 1, 2, 0]), np.zeros(6, int))


@pytest.mark.parametrize("files", [["mine.jpg"], ["ILSVRC2012_val_00000007.JPEG"]])
def test_other_images_have_no_real_labels(files):
    with pytest.raises(ValueError, match=f"the images are other ones, such as {files[0]}"):
        other_data.score_real(REAL, files, np.zeros(1, int), np.zeros(1, int))


def test_real_json_is_read(tmp_path):
    (tmp_path / "real.json").write_text(json.dumps(REAL))
    assert other_data.read_real(tmp_path / "real.json", classes=4) == REAL


@pytest.mark.parametrize(
    "text", ["[[0], [4]]", "[0, 1]", '{"a": [0]}', '[["n01440764"]]', "[[", ""]
)
def test_another_file_than_real_json_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "real.json").write_text(text)
    with pytest.raises(ValueError, match="no list of lists of classes from 0 to 3") as caught:
        other_data.read_real(tmp_path / "real.json", classes=4)
    assert "\n" not in str(caught.value)


def folders(root, *names):
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True)
        (root / name / "a.jpeg").write_bytes(jpeg(40, 50, seed=number))
    return root


def labels_of(root):
    images = other_data.read_folder(root, classes=CLASSES)
    return {Path(path).parent.name: label for path, label in images}


def test_folders_named_as_in_training_have_their_labels(tmp_path):
    assert labels_of(folders(tmp_path, "class10", "class2")) == {"class10": 10, "class2": 2}


def test_numbered_folders_count_and_are_not_sorted_as_text(tmp_path):
    """ImageNet-V2's known trap: as text, "10" stands before "2"."""
    found = labels_of(folders(tmp_path, "0", "1", "10", "2", "0011"))
    assert found == {"0": 0, "1": 1, "10": 10, "2": 2, "0011": 11}


def test_numbers_that_are_the_models_own_names_mean_those(tmp_path):
    classes = [{"wnid": wnid, "name": wnid} for wnid in ("1", "10", "2")]
    images = other_data.read_folder(folders(tmp_path, "10", "2"), classes=classes)
    assert [label for _, label in images] == [1, 2]


@pytest.mark.parametrize("name", ["12", "-1", "wolf"])
def test_folders_of_other_classes_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} is none of the model's classes; name its"):
        other_data.read_folder(folders(tmp_path, "0", name), classes=CLASSES)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing in it is none of"):
        other_data.read_folder(tmp_path, classes=CLASSES)


def test_every_image_of_the_folder_is_seen_once_with_its_label(tmp_path):
    root = class_folders(tmp_path / "raw", classes=3, images=4)
    (root / "class1" / "cmyk.jpg").write_bytes(jpeg(40, 50, mode="CMYK"))
    (root / "class2" / "grey.png").write_bytes(png(40, 50, mode="L"))
    images = other_data.read_folder(root, classes=CLASSES)
    examples = other_data.encoded_examples(images, ORIGINAL)
    found = test_time_augmentation.batches(
        examples, "centre", batch_size=5, image_size=32, resize_side=36
    )
    labels = np.concatenate([labels for _, labels in found])
    assert labels.tolist() == [0] * 4 + [1] * 5 + [2] * 5


@pytest.mark.parametrize("broken", [b"no image", jpeg(40, 50)[:-100]])
def test_an_image_that_cannot_be_read_is_named(broken, tmp_path):
    root = class_folders(tmp_path / "raw", classes=2, images=2)
    (root / "class1" / "broken.jpg").write_bytes(broken)
    images = other_data.read_folder(root, classes=CLASSES)
    examples = other_data.encoded_examples(images, ORIGINAL)
    with pytest.raises(tf.errors.OpError, match="broken.jpg cannot be decoded"):
        list(examples)


@pytest.mark.parametrize("told", [{"store_quality": 60}, {}])  # an older model.json: 90
def test_images_are_prepared_as_the_shards_are(told, tmp_path):
    for split in ("train", "validation"):
        root = folders(tmp_path / "raw" / split, "class0", "class1")
        (root / "class1" / "large.jpg").write_bytes(jpeg(120, 170, seed=5))
    store = {"store_short_side": 48, "store_quality": 90} | told
    prepare(tmp_path / "raw", tmp_path / "shards", train_shards=1, **store)
    stored = dataset.encoded_examples(data_dir=tmp_path / "shards", split="validation")
    images = other_data.read_folder(root, classes=CLASSES)
    found = other_data.encoded_examples(images, {"store_short_side": 48} | told)
    expected, found = (
        sorted((int(row["label"]), row["encoded"].numpy()) for row in rows)
        for rows in (stored, found)
    )
    assert len(found) == 3 and found == expected
