"""Splits as people's folders name them, and the images that are held out by groups."""

import unicodedata
from collections import Counter

import numpy as np
import pytest
from images import class_folders, index_of, jpeg, prepare

from kit.data.manifest import class_counts, read_manifest, shard_paths
from kit.prep import splits
from kit.prep.reading import Image
from kit.prep.verify import verify

IMAGE = jpeg(8, 8)


def folders(root, *names, images=2):
    """Write so many images into each of these folders."""
    for folder in names:
        (root / folder).mkdir(parents=True)
        for number in range(images):
            (root / folder / f"{number}.jpg").write_bytes(IMAGE)


def read(root):
    index = index_of(root, validation_fraction=0.5)
    counts = Counter((image.split, index.classes[image.label].name) for image in index.images)
    return index, dict(counts)


# Folders of splits


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "valid", "test"),  # Roboflow's
        ("train", "val", "test"),
        ("Training", "Validation", "Testing"),
        ("TRAIN", "VALID", "Test"),
    ],
)
def test_the_splits_are_known_by_the_names_that_people_give(tmp_path, train, validation, test):
    folders(tmp_path, *(f"{split}/{name}" for split in (train, validation, test) for name in "ab"))
    index, counts = read(tmp_path)
    assert index.layout == "split folders"
    assert counts == {(s, name): 2 for s in ("train", "validation", "test") for name in "ab"}
    assert not index.missing
    assert not index.skipped


def test_training_and_testing_alone_hold_the_validation_out_of_training(tmp_path):
    folders(tmp_path, *(f"{split}/{name}" for split in ("Training", "Testing") for name in "ab"))
    index, counts = read(tmp_path)
    assert counts == {
        **{("train", name): 1 for name in "ab"},
        **{("validation", name): 1 for name in "ab"},
        **{("test", name): 2 for name in "ab"},
    }
    assert "validation_fraction of each class is held out" in index.missing[0]


@pytest.mark.parametrize("classes", [("bus", "plane", "train"), ("Test", "plane", "train", "val")])
@pytest.mark.parametrize("inside", ["", "train/", "data/"])
def test_classes_may_be_called_as_splits_are(tmp_path, classes, inside):
    folders(tmp_path, *(f"{inside}{name}" for name in classes))
    if inside == "train/":
        folders(tmp_path, *(f"val/{name}" for name in classes))
    index, counts = read(tmp_path)
    assert [name.name for name in index.classes] == sorted(classes)
    assert {split for split, _ in counts} == {"train", "validation"}
    assert {name for _, name in counts} == set(classes)


@pytest.mark.parametrize("inside", ["photos", "photos/pictures"])
def test_a_folder_around_the_folder_is_entered(tmp_path, inside):
    folders(tmp_path / inside, "a", "b")
    folders(tmp_path, "__MACOSX/photos")
    (tmp_path / "readme.txt").write_text("photos of mine")
    index, counts = read(tmp_path)
    assert counts == {(split, name): 1 for split in ("train", "validation") for name in "ab"}
    assert sorted(reason for _, reason in index.skipped) == [
        "not an image by its name (.txt)",
        "of the operating system",
    ]


def test_folders_beside_the_splits_and_images_without_labels_are_counted(tmp_path):
    folders(tmp_path, "train/a", "train/b", "val/a", "val/b", "test", "extra")
    index, _ = read(tmp_path)
    assert dict(index.skipped) == {
        f"{tmp_path}/test": "2 test images without class folders, so without labels",
        f"{tmp_path}/extra": "a folder beside the splits",
    }


def test_test_images_have_shards_of_their_own(tmp_path):
    for split, images in (("train", 6), ("val", 3), ("test", 2)):
        class_folders(tmp_path / "raw" / split, classes=2, images=images)
    written = prepare(tmp_path / "raw", tmp_path / "shards", validation_shards=2)
    assert class_counts(written) == {"train": [6, 6], "validation": [3, 3], "test": [2, 2]}
    names = [path.rpartition("/")[2] for path in shard_paths(tmp_path / "shards", "test")]
    assert names == ["test-00000-of-00002", "test-00001-of-00002"]
    assert read_manifest(tmp_path / "shards") == written
    found = verify(tmp_path / "shards", processes=1)["splits"]
    assert found["test"] == {"shards": 2, "images": 4}


def test_few_test_images_have_fewer_shards(tmp_path):
    for split, images in (("train", 6), ("val", 3), ("test", 1)):
        class_folders(tmp_path / "raw" / split, classes=2, images=images)
    written = prepare(tmp_path / "raw", tmp_path / "shards", validation_shards=5)
    assert [len(part["shards"]) for part in written["splits"].values()] == [2, 5, 2]


def test_a_refused_preparation_leaves_no_folder(tmp_path):
    folders(tmp_path / "raw", "a", "b")
    (tmp_path / "one").mkdir()
    for raw, changes in (("one", {}), ("raw/a", {}), ("raw", {"train_shards": 9})):
        with pytest.raises(ValueError):
            prepare(tmp_path / raw, tmp_path / "shards", **changes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "raw"]


# Bad input


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train/a", "train/b", "val/a", "valid/b"), "has both val/ and valid/: remove one"),
        (("valid/a", "valid/b", "test/a"), "has test/, valid/ but no train/ with a folder of"),
        (("train", "test"), "has test/, train/ but no train/ with a folder of images for each"),
        (
            ("train/a", "train/b", "val/x", "val/a", "val/y", "test/z"),
            "val has classes x, y, which .*train lacks; .*test has class z, which .*train lacks",
        ),
    ],
)
def test_what_does_not_fit_together_is_named_in_one_line(tmp_path, names, words):
    folders(tmp_path, *names)
    with pytest.raises(ValueError, match=words) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_all_classes_without_images_are_named_at_once(tmp_path):
    folders(tmp_path, "a", "b")
    folders(tmp_path, "c", "d", images=0)
    with pytest.raises(ValueError, match=r"class folders .*/c, .*/d hold no image: add some"):
        read(tmp_path)


def test_classes_without_images_in_a_split_are_named(tmp_path):
    folders(tmp_path, "train/a", "train/b", "train/c", "val/b", "test/a", "test/c")
    index, _ = read(tmp_path)
    assert index.missing == ["validation images of a, c", "test images of b"]


# Names


def test_composed_and_decomposed_names_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    folders(tmp_path, f"train/{composed}", "train/tea", f"val/{decomposed}", "val/tea")
    try:
        folders(tmp_path, f"train/{decomposed}", images=1)
    except FileExistsError:
        pytest.skip("this file system takes both for one name")
    index, counts = read(tmp_path)
    assert [name.wnid for name in index.classes] == [composed, "tea"]
    assert counts == {
        ("train", composed): 3,
        ("train", "tea"): 2,
        ("validation", composed): 2,
        ("validation", "tea"): 2,
    }


def test_classes_that_print_alike_are_refused_all_together(tmp_path):
    folders(tmp_path, "a\tb", "a\nb", "c", "d\x01", "d\x02")
    with pytest.raises(ValueError, match="print alike") as caught:
        read(tmp_path)
    assert r"'a\nb', 'a\tb', 'd\x01', 'd\x02': rename them" in str(caught.value)
    assert "\n" not in str(caught.value)


# Groups


def grouped(sizes, classes, seed=0):
    """Give images in groups of these sizes, of random classes, and the group of each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, sum(sizes))
    owners = np.repeat(np.arange(len(sizes)), sizes)
    images = [Image("train", int(n), "/raw", f"{i}.jpg", 1) for i, n in enumerate(labels)]
    return images, {
        image: f"group {owner}" for image, owner in zip(images, owners, strict=True) if owner
    }


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_torn_and_every_class_gets_its_share(seed):
    sizes = np.random.default_rng(seed).integers(1, 12, 120)
    images, group_of = grouped(sizes, classes=4, seed=seed)
    found = splits.hold_out_groups(images, group_of, fraction=0.2, seed=seed)
    sides = {}
    for image in found:
        group = group_of.get(image._replace(split="train"))
        sides.setdefault(group, set()).add(image.split)
    sides.pop(None, None)  # images of no group
    assert all(len(side) == 1 for side in sides.values())
    assert sorted(image.name for image in found) == sorted(image.name for image in images)
    for label in range(4):
        of_label = [image.split for image in found if image.label == label]
        assert 0.16 < of_label.count("validation") / len(of_label) < 0.24


def test_groups_are_held_out_by_the_seed():
    images, group_of = grouped([5] * 40, classes=2)

    def held(seed, images=images):
        found = splits.hold_out_groups(images, group_of, fraction=0.2, seed=seed)
        return {image.name for image in found if image.split == "validation"}

    assert held(0) == held(0, images[::-1])
    assert held(0) != held(1)


def test_large_groups_leave_each_class_an_image_on_both_sides_where_they_can():
    images = [Image("train", n // 8, "/raw", f"{n}.jpg", 1) for n in range(16)]
    group_of = {image: f"group {number // 4}" for number, image in enumerate(images)}
    found = splits.hold_out_groups(images, group_of, fraction=0.1, seed=0)
    counts = Counter((image.split, image.label) for image in found)
    assert counts == {(split, label): 4 for split in ("train", "validation") for label in (0, 1)}


def test_a_class_of_one_group_stays_in_training():
    images = [Image("train", n // 8, "/raw", f"{n}.jpg", 1) for n in range(16)]
    group_of = dict.fromkeys(images[:8], "all")
    found = splits.hold_out_groups(images, group_of, fraction=0.25, seed=0)
    assert {image.split for image in found if image.label == 0} == {"train"}
    assert sum(image.split == "validation" for image in found) == 2
