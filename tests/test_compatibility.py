import copy

import keras
import numpy as np
import pytest

from kit.evaluation import compatibility
from kit.evaluation.sections import Evaluation

CLASSES = [{"wnid": f"n{i}", "name": f"class {i}"} for i in range(3)]
MEANS = [123.68, 116.779, 103.939]
METADATA = {
    "classes": CLASSES,
    "channel_means": MEANS,
    "stage_sizes": [2, 1],
    "label_offset": 1,
    "store_short_side": 320,
    "store_quality": 90,
}
MANIFEST = {
    "classes": [dict(row) for row in CLASSES],
    "label_offset": 1,
    "parameters": {"store_short_side": 320, "store_quality": 90},
    "splits": {"validation": {"shards": [{"classes": [3, 2, 2]}, {"classes": [1, 2, 2]}]}},
}
LABELS = np.repeat([0, 1, 2], 4)


@pytest.fixture(scope="module")
def model():
    """The layers that are looked at, named as in kit/model/resnet.py."""
    pixels = keras.Input((None, None, 3))
    offset = [-mean for mean in MEANS]
    x = keras.layers.Rescaling(1.0, offset, name="subtract_means")(pixels)
    for name in ("stage1_block1_add", "stage1_block2_add", "stage2_block1_add"):
        x = keras.layers.Add(name=name)([x, x])
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    return keras.Model(pixels, keras.layers.Dense(3, name="logits")(x))


SETTINGS = {
    "test_views": ["flip", "ten_crop"],
    "test_sizes": [224, 288],
    "real_labels": "",
    "other_images": "",
    "compare_with": "",
}


@pytest.mark.parametrize(
    "name, value, line",
    [
        ("test_views", ["five_crop"], '"five_crop" is not one of flip, ten_crop'),
        ("test_sizes", [16], "16 is no whole number of pixels of 32 or more"),
        ("test_sizes", [224.0], "224.0 is no whole number"),
        ("real_labels", "no/real.json", "no/real.json is not there; name ReaL's real.json"),
        ("other_images", "no/folder", "no/folder is not there; name a folder of class folders"),
        ("compare_with", "kit", "kit/predictions.csv is not there; evaluate that run first"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused_in_one_line(name, value, line):
    compatibility.check_files(Evaluation(**SETTINGS))
    with pytest.raises((ValueError, FileNotFoundError), match=line) as caught:
        compatibility.check_files(Evaluation(**SETTINGS | {name: value}))
    assert str(caught.value).startswith(name) and "\n" not in str(caught.value)


def test_files_that_are_there_pass(tmp_path):
    (tmp_path / "predictions.csv").touch()
    here = dict.fromkeys(("other_images", "compare_with"), str(tmp_path))
    here["real_labels"] = str(tmp_path / "predictions.csv")
    compatibility.check_files(Evaluation(**SETTINGS | here))


def test_what_belongs_together_passes(model):
    compatibility.check_model(model, METADATA)
    compatibility.check_data(METADATA, MANIFEST)
    compatibility.check_labels(LABELS, np.roll(LABELS, 4), MANIFEST)


@pytest.mark.parametrize(
    "change, line",
    [
        ({"channel_means": [0.485, 0.456, 0.406]}, r"means \[123.68.* says \[0.485, 0.456, 0.406"),
        ({"channel_means": MEANS[::-1]}, r"says \[103.939, 116.779, 123.68\]: they are not of"),
        ({"channel_means": [0, 1]}, r"says \[0, 1\]: they are not of"),
        ({"stage_sizes": [1, 2]}, r"\[2, 1\] blocks .* says \[1, 2\]"),
    ],
)
def test_another_network_than_model_json_tells_of_is_refused(model, change, line):
    with pytest.raises(ValueError, match=line) as caught:
        compatibility.check_model(model, METADATA | change)
    assert "\n" not in str(caught.value)


def test_a_model_without_its_record_is_refused(model):
    metadata = {name: value for name, value in METADATA.items() if name != "channel_means"}
    with pytest.raises(ValueError, match="model.json lacks channel_means: train again"):
        compatibility.check_model(model, metadata)


def test_a_network_that_subtracts_nothing_is_refused():
    pixels = keras.Input((None, None, 3))
    plain = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels))
    with pytest.raises(ValueError, match="has no layer subtract_means: it is not the kit's"):
        compatibility.check_model(plain, METADATA)


def test_pixels_scaled_otherwise_are_refused(model):
    pixels = keras.Input((None, None, 3))
    offset = [-mean for mean in MEANS]
    x = keras.layers.Rescaling(1 / 255, offset, name="subtract_means")(pixels)
    scaled = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x))
    with pytest.raises(ValueError, match="times"):
        compatibility.check_model(scaled, METADATA)


@pytest.mark.parametrize("name, value", [("label_offset", 0), ("store_short_side", 0)])
def test_images_labelled_or_stored_otherwise_than_in_training_are_refused(name, value):
    manifest = copy.deepcopy(MANIFEST)
    (manifest if name in manifest else manifest["parameters"])[name] = value
    with pytest.raises(ValueError, match=f"{name} {METADATA[name]}, and these have 0: evaluate"):
        compatibility.check_data(METADATA, manifest)


def stored(**changes):
    return MANIFEST | {"parameters": MANIFEST["parameters"] | changes}


def test_images_stored_at_another_quality_are_refused():
    with pytest.raises(ValueError, match="store_quality 90, and these have 60: evaluate it on"):
        compatibility.check_data(METADATA, stored(store_quality=60))


@pytest.mark.parametrize("ours, theirs", [(True, False), (False, True), (None, True)])
def test_images_turned_otherwise_are_refused(ours, theirs):
    older = {} if ours is None else {"apply_orientation": ours}  # an older kit turned none
    with pytest.raises(
        ValueError, match=f"apply_orientation {bool(ours)}, and these have {theirs}"
    ):
        compatibility.check_data(METADATA | older, stored(apply_orientation=theirs))


def test_the_quality_of_images_stored_as_they_were_says_nothing():
    original = METADATA | {"store_short_side": 0}
    compatibility.check_data(original, stored(store_short_side=0, store_quality=60))


def test_a_model_json_that_states_no_quality_passes():
    older = {name: value for name, value in METADATA.items() if name != "store_quality"}
    compatibility.check_data(older, stored(store_quality=60))


def test_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="model has 3 classes and the data 2: name the run_dir"):
        compatibility.check_data(METADATA, MANIFEST | {"classes": CLASSES[:2]})


def test_another_order_of_classes_is_refused():
    swapped = MANIFEST | {"classes": [CLASSES[0], CLASSES[2], CLASSES[1]]}
    with pytest.raises(ValueError, match='class 1 is "n1 class 1" in the model and "n2 class 2"'):
        compatibility.check_data(METADATA, swapped)


def test_labels_that_the_manifest_does_not_count_are_refused():
    with pytest.raises(ValueError, match="5 images are labelled 0 and the manifest counts 4"):
        compatibility.check_labels(np.where(LABELS == 1, 0, LABELS)[3:], LABELS[3:], MANIFEST)


@pytest.mark.parametrize("shift", [-1, 1])
def test_labels_that_count_from_elsewhere_are_refused(shift):
    """As many images a class as ever, as in ImageNet: only the answers can tell."""
    labels = np.repeat(np.arange(10), 5)
    manifest = {"splits": {"validation": {"shards": [{"classes": [5] * 10}]}}}
    compatibility.check_labels(labels, labels, manifest)
    with pytest.raises(ValueError, match="far better than the labels: these are not counted"):
        compatibility.check_labels(labels, (labels + shift) % 10, manifest)


def images_of(classes, each):
    labels = np.repeat(np.arange(classes), each)
    shards = [{"classes": [each] * classes}]
    return labels, {"splits": {"validation": {"shards": shards}}}


@pytest.mark.parametrize("accuracy", [0.05, 0.45, 0.95])
@pytest.mark.parametrize("shift", [-1, 1])
def test_labels_one_off_are_refused_however_weak_the_model(accuracy, shift):
    rng = np.random.default_rng(0)
    labels, manifest = images_of(1000, 50)
    sure = rng.random(len(labels)) < accuracy
    answers = np.where(sure, labels + shift, rng.integers(0, 1000, len(labels)))
    compatibility.check_labels(labels, np.where(sure, labels, answers), manifest)
    with pytest.raises(ValueError, match=f"fit the labels .{abs(shift)} far better"):
        compatibility.check_labels(labels, answers, manifest)


@pytest.mark.parametrize("classes, seen", [(7, False), (11, True), (12, True), (20, True)])
@pytest.mark.parametrize("accuracy", [0.4, 0.6, 0.8, 0.95, 1.0])
def test_a_shift_is_seen_from_eleven_classes_on_and_not_with_seven(classes, seen, accuracy):
    """The last class counts as the first: one class fewer can show it."""
    rng = np.random.default_rng(0)
    labels, _ = images_of(classes, 50)
    for _ in range(10):
        sure = rng.random(len(labels)) < accuracy
        answers = np.where(sure, (labels + 1) % classes, rng.integers(0, classes, len(labels)))
        assert compatibility.is_shifted(labels, answers, 1) == seen


def untrained(rng, labels, classes, kind):
    """Answers that say nothing of where the labels count from."""
    images = len(labels)
    whole_classes = rng.integers(0, classes, classes)[labels]  # each class has one answer, any
    return {
        "any": rng.integers(0, classes, images),
        "one": np.full(images, rng.integers(classes)),
        "a few": rng.choice(classes, images, p=rng.dirichlet(np.full(classes, 0.1))),
        "by class": whole_classes,
        "two neighbours": np.where(rng.random(images) < 0.5, labels, (labels + 1) % classes),
    }[kind]


@pytest.mark.parametrize("kind", ["any", "one", "a few", "by class", "two neighbours"])
@pytest.mark.parametrize("classes, each", [(2, 50), (3, 40), (10, 20), (100, 10)])
def test_no_false_alarm(kind, classes, each):
    """Fewer than one in 100 evaluations, where images alone would alarm in up to half of them."""
    rng = np.random.default_rng(0)
    labels, _ = images_of(classes, each)
    alarms = 0
    for _ in range(400):
        answers = untrained(rng, labels, classes, kind)
        alarms += any(compatibility.is_shifted(labels, answers, shift) for shift in (-1, 1))
    assert alarms < 4


def test_one_answer_to_uneven_classes_is_no_shift():
    """Nine images in ten are of class 3, and the network says 4 of every one."""
    labels = np.repeat(np.arange(10), [10, 10, 10, 810, 10, 10, 10, 10, 10, 10])
    assert not compatibility.is_shifted(labels, np.full(len(labels), 4), 1)
