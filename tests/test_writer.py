"""Plans, shards and manifests, read back by TensorFlow alone and compared with the raw files."""

import errno
import hashlib
import io
import json
import os
import re
import resource
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from kit.data import paths, storage
from kit.data.manifest import (
    ClassName,
    class_counts,
    class_names,
    outcomes,
    read_manifest,
    shard_paths,
    told,
)
from kit.prep import manifest_writer, writer
from kit.prep.sources import Image, Index
from tests.images import class_folders, index_of, jpeg, make_shards, png, preparation


@pytest.fixture
def raw_dir(tmp_path):
    return class_folders(tmp_path / "raw", classes=3, images=6)


def write(raw_dir, data_dir, *, seed=0, progress=lambda tasks, total: tasks, **changes):
    """Write shards with that seed; the split's stays 0."""
    where = {"raw_dir": raw_dir, "data_dir": data_dir, "seed": seed}
    section = preparation(**changes)
    return writer.write_shards(index_of(raw_dir), section, **where, progress=progress)


def plan(index, train_shards, validation_shards, seed=0):
    section = preparation(train_shards=train_shards, validation_shards=validation_shards)
    return writer.plan(index, section, seed=seed)


def write_one(shard, index, data_dir, raw_dir):
    where = {"folder": storage.folder(data_dir), "root": str(raw_dir)}
    return writer.write_shard(shard, **where, classes=index.classes, preparation=preparation())


def made_up(train, validation, classes=10):
    """Returns an index of images that are nowhere on the disk, sorted by class."""
    images = [
        Image(split, number * classes // count, f"/raw/{split}", f"{number:06d}.jpg", 0)
        for split, count in (("train", train), ("validation", validation))
        for number in range(count)
    ]
    names = [ClassName(str(label), str(label)) for label in range(classes)]
    return Index("folder", names, images, [])


def read_back(data_dir, split):
    """Yields (class folder, file name, label on disk, encoded) of each record of the split."""
    for path in sorted(Path(data_dir).glob(f"{split}-*")):
        for record in tf.data.TFRecordDataset(str(path)):
            feature = tf.train.Example.FromString(record.numpy()).features.feature
            yield (
                feature["image/class/synset"].bytes_list.value[0].decode(),
                feature["image/filename"].bytes_list.value[0].decode(),
                feature["image/class/label"].int64_list.value[0],
                feature["image/encoded"].bytes_list.value[0],
            )


def contents(data_dir):
    return {path.name: path.read_bytes() for path in Path(data_dir).iterdir()}


def shard_bytes(data_dir):
    return {path.name: path.read_bytes() for path in Path(data_dir).glob("*-of-*")}


def picture_size(encoded):
    with PIL.Image.open(io.BytesIO(encoded)) as picture:
        return picture.size


def grey_mean(encoded):
    with PIL.Image.open(io.BytesIO(encoded)) as picture:
        return np.asarray(picture.convert("L"), float).mean()


def damage(raw_dir):
    """Adds three files that no decoder reads, one of them with a sound header."""
    (raw_dir / "class0/empty.jpg").write_bytes(b"")
    (raw_dir / "class1/page.jpg").write_bytes(b"<html>not found</html>")
    (raw_dir / "class2/cut.jpg").write_bytes(jpeg(64, 64)[:-400])


# Plan


def test_plan_deals_imagenets_validation_out_in_390_or_391():
    plans = plan(made_up(10, 50_000), 1, 128)
    validation = [shard for shard in plans if shard.split == "validation"]
    assert Counter(len(shard.images) for shard in validation) == {391: 80, 390: 48}
    assert validation[127].name == "validation-00127-of-00128"
    assert len({image.path for shard in validation for image in shard.images}) == 50_000


def test_plan_mixes_classes():
    plans = plan(made_up(4000, 10), 4, 1)
    for shard in plans[:4]:
        counts = Counter(image.label for image in shard.images)
        assert all(70 <= counts[label] <= 130 for label in range(10))  # 100, five deviations of 9


def test_plan_follows_the_seed_alone():
    def order(seed):
        return plan(made_up(50, 10), 3, 2, seed)

    assert order(0) == order(0)
    assert order(0) != order(1)


@pytest.mark.parametrize(("number", "words"), [(0, "is not from 1"), (11, "for 10 validation")])
def test_more_shards_than_images_are_refused(number, words):
    with pytest.raises(ValueError, match=f"validation_shards: {number} {words}"):
        plan(made_up(50, 10), 3, number)


# Shards


def test_every_image_stands_in_one_record_unchanged(raw_dir, tmp_path):
    write(raw_dir, tmp_path / "shards")
    found = [
        *read_back(tmp_path / "shards", "train"),
        *read_back(tmp_path / "shards", "validation"),
    ]
    assert len(found) == 18
    for folder, name, label, encoded in found:
        assert encoded == (raw_dir / folder / name).read_bytes()
        assert label == int(folder.removeprefix("class")) + 1
    assert len({name for _, name, _, _ in found}) == 18


def test_manifest_describes_the_files(raw_dir, tmp_path):
    data_dir = tmp_path / "shards"
    assert write(raw_dir, data_dir) == read_manifest(data_dir)
    manifest = read_manifest(data_dir)
    assert manifest["splits"]["train"]["images"] == 12
    assert manifest["splits"]["validation"]["images"] == 6
    for split, entry in manifest["splits"].items():
        labels = [label for _, _, label, _ in read_back(data_dir, split)]
        assert Counter(labels) == {1: len(labels) // 3, 2: len(labels) // 3, 3: len(labels) // 3}
        histograms = [shard["classes"] for shard in entry["shards"]]
        assert [sum(column) for column in zip(*histograms, strict=True)] == [len(labels) // 3] * 3
        for shard in entry["shards"]:
            data = (data_dir / shard["name"]).read_bytes()
            assert shard["bytes"] == len(data)
            assert shard["sha256"] == hashlib.sha256(data).hexdigest()
            assert shard["records"] == sum(shard["classes"])
    assert (data_dir / "classes.tsv").read_text() == (
        "label\twnid\tname\n1\tclass0\tclass0\n2\tclass1\tclass1\n3\tclass2\tclass2\n"
    )
    assert class_names(data_dir)[1] == ClassName("class1", "class1")
    assert sorted(contents(data_dir)) == [
        "classes.tsv",
        "manifest.json",
        "train-00000-of-00002",
        "train-00001-of-00002",
        "validation-00000-of-00001",
    ]


def test_number_of_processes_changes_no_byte(raw_dir, tmp_path):
    write(raw_dir, tmp_path / "one", processes=1)
    write(raw_dir, tmp_path / "two", processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_progress_wraps_the_stream_of_shards(raw_dir, tmp_path):
    seen = []

    def progress(tasks, total):
        for shard in tasks:
            seen.append((shard["name"], total))
            yield shard

    write(raw_dir, tmp_path / "shards", progress=progress)
    assert [total for _, total in seen] == [3, 3, 3]
    assert len({name for name, _ in seen}) == 3


def test_odd_images_are_reencoded_and_listed(raw_dir, tmp_path):
    (raw_dir / "class0/odd.JPEG").write_bytes(png(20, 30))
    (raw_dir / "class1/press.jpg").write_bytes(jpeg(20, 30, mode="CMYK"))
    manifest = write(raw_dir, tmp_path / "shards")
    assert sorted((item["file"], item["reason"]) for item in manifest["reencoded"]) == [
        ("class0/odd.JPEG", "PNG"),
        ("class1/press.jpg", "CMYK JPEG"),
    ]
    assert sum(split["images"] for split in manifest["splits"].values()) == 20
    for split in manifest["splits"]:
        for *_, encoded in read_back(tmp_path / "shards", split):
            assert encoded[:2] == b"\xff\xd8"


# Unreadable images


def test_unreadable_images_are_quarantined_listed_and_counted(raw_dir, tmp_path):
    damage(raw_dir)
    manifest = write(raw_dir, tmp_path / "shards", quarantine_budget=0.2)
    assert sorted((item["file"], item["reason"]) for item in manifest["quarantined"]) == [
        ("class0/empty.jpg", "empty file"),
        ("class1/page.jpg", "not an image"),
        ("class2/cut.jpg", "truncated or damaged: TensorFlow cannot decode it"),
    ]
    splits = manifest["splits"].values()
    assert sum(split["images"] for split in splits) == 18
    assert sum(split["quarantined"] for split in splits) == 3
    names = {
        name
        for split in manifest["splits"]
        for _, name, _, _ in read_back(tmp_path / "shards", split)
    }
    assert not names & {"empty.jpg", "page.jpg", "cut.jpg"}


def test_outcomes_count_images_by_reason(raw_dir, tmp_path):
    damage(raw_dir)
    (raw_dir / "class0/odd.JPEG").write_bytes(png(20, 30))
    (raw_dir / "class0/notes.txt").write_text("not an image")
    found = write(raw_dir, tmp_path / "shards", quarantine_budget=0.2, store_short_side=40)
    assert outcomes(found) == [
        ("read", "", 22),
        ("written", "", 19),
        ("resized", "", 18),
        ("re-encoded", "PNG", 1),
        ("quarantined", "empty file", 1),
        ("quarantined", "not an image", 1),
        ("quarantined", "truncated or damaged", 1),
        ("skipped", "not an image by its name (.txt)", 1),
    ]
    assert class_counts(found) == {"train": [5, 4, 4], "validation": [2, 2, 2]}


def test_outcomes_are_told_in_a_line_each_and_rare_reasons_as_one():
    images = [{"reason": f"kind {n:02}"} for n in range(15) for _ in range(n + 1)]
    found = {"splits": {"train": {"images": 2000, "shards": [{"smaller": 3}, {}]}}}
    found |= {"reencoded": [{"reason": "PNG"}], "quarantined": [], "skipped": images}
    assert outcomes(found)[-1] == ("skipped", "other reasons", 1 + 2 + 3)
    assert sum(count for outcome, _, count in outcomes(found) if outcome == "skipped") == 120
    lines = dict(told(found))
    assert list(lines) == ["read", "written", "resized", "re-encoded", "quarantined", "skipped"]
    assert [lines[name] for name in ("read", "resized", "re-encoded", "quarantined")] == [
        "2,000",
        "3",
        "1: PNG 1",
        "0",
    ]
    assert lines["skipped"].startswith("120: kind 03 4; kind 04 5; ")


def test_header_check_decodes_nothing(raw_dir, tmp_path):
    damage(raw_dir)
    manifest = write(raw_dir, tmp_path / "shards", quarantine_budget=0.2, check="header")
    assert len(manifest["quarantined"]) == 2  # the cut file has a sound header


def test_budget_exceeded_fails_and_a_larger_one_goes_on(raw_dir, tmp_path):
    damage(raw_dir)
    data_dir = tmp_path / "shards"
    with pytest.raises(ValueError, match=r"quarantine_budget of 0.09 of 21: .*\.jpg \(") as caught:
        write(raw_dir, data_dir, quarantine_budget=0.09)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="holds no finished shards"):
        shard_paths(data_dir, "train")
    write(raw_dir, data_dir, quarantine_budget=0.2)
    write(raw_dir, tmp_path / "whole", quarantine_budget=0.2)
    assert contents(data_dir) == contents(tmp_path / "whole")


def test_images_removed_from_under_an_unfinished_set_are_noticed(raw_dir, tmp_path):
    (raw_dir / "class0/empty.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"class0/empty.jpg \(empty file\)"):
        write(raw_dir, tmp_path / "shards")
    (raw_dir / "class0/empty.jpg").unlink()
    with pytest.raises(ValueError, match="with other images: delete it or name another"):
        write(raw_dir, tmp_path / "shards")
    manifest = write(raw_dir, tmp_path / "new")
    assert sum(split["images"] for split in manifest["splits"].values()) == 18


def test_huge_file_is_not_read(raw_dir, tmp_path):
    with (raw_dir / "class0/huge.jpg").open("wb") as file:
        file.truncate(2**28 + 1)  # takes no room on the disk
    manifest = write(raw_dir, tmp_path / "shards", quarantine_budget=0.1)
    (item,) = manifest["quarantined"]
    assert item["reason"] == "a file of more than 268,435,456 bytes"


# Other failures


def vanish(path):
    path.unlink()


def lead_round(path):
    path.unlink()
    path.symlink_to(path)


def become_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def become_a_folder(path):
    path.unlink()
    path.mkdir()


def grow(path):
    path.write_bytes(path.read_bytes() + b"more")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (vanish, "No such file"),
        (lead_round, "symbolic links"),
        (become_a_pipe, "not a regular file"),
        (become_a_folder, "[Ii]s a directory|not a regular file"),
        (grow, "bytes when it was listed and has"),
    ],
)
def test_whatever_becomes_of_one_image_the_run_goes_on(raw_dir, tmp_path, spoil, reason):
    index = index_of(raw_dir)
    (shard, _) = plan(index, 1, 1)
    spoil(Path(shard.images[5].path))
    entry = write_one(shard, index, tmp_path, raw_dir)
    (item,) = entry["quarantined"]
    assert re.search(reason, item["reason"]) and shard.images[5].name in item["file"]
    assert entry["records"] == len(shard.images) - 1


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES, errno.EIO, errno.ESTALE])
def test_errors_of_the_file_system_cost_one_image(raw_dir, tmp_path, monkeypatch, number):
    index = index_of(raw_dir)
    (shard, _) = plan(index, 1, 1)
    bad, read = shard.images[2].path, paths.read_file

    def refuse(path, limit):
        if path == bad:
            raise OSError(number, os.strerror(number), path)
        return read(path, limit)

    monkeypatch.setattr(paths, "read_file", refuse)
    (item,) = write_one(shard, index, tmp_path, raw_dir)["quarantined"]
    assert item["reason"] == f"cannot be read ({os.strerror(number)})"  # one for all such files


def test_images_that_vanish_together_are_over_the_budget(raw_dir, tmp_path):
    index = index_of(raw_dir)
    for image in index.images:
        Path(image.path).unlink()
    where = {"raw_dir": raw_dir, "data_dir": tmp_path / "shards", "seed": 0}
    with pytest.raises(ValueError, match="over the quarantine_budget of 0.1 .*No such file"):
        writer.write_shards(index, preparation(quarantine_budget=0.1), **where)


def test_surprise_names_the_image(raw_dir, tmp_path):
    index = index_of(raw_dir)
    (shard, _) = plan(index, 1, 1)
    bad = shard.images[2]._replace(label=7)  # three classes: an IndexError deep inside
    shard = shard._replace(images=[bad, *shard.images])
    with pytest.raises(RuntimeError, match=rf"{bad.name} cannot be prepared \(IndexError"):
        write_one(shard, index, tmp_path, raw_dir)


def test_full_disk_is_told_in_one_line_and_loses_nothing(raw_dir, tmp_path):
    whole, data_dir = tmp_path / "whole", tmp_path / "shards"
    write(raw_dir, whole)
    first, second, _ = sorted(path.stat().st_size for path in whole.glob("*-of-*"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (first, limits[1]))  # room for the smallest
        with pytest.raises(OSError, match=r"cannot be written: .*finished shards are kept") as told:
            write(raw_dir, data_dir, check="header")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(told.value)
    assert not list(data_dir.glob(".*"))
    write(raw_dir, data_dir, check="header")
    assert shard_bytes(data_dir) == shard_bytes(whole)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder that no one may write")
def test_folder_that_cannot_be_written_is_named(raw_dir):
    with pytest.raises(OSError, match=r"/sys/kernel/shards cannot be written \(.*name another"):
        write(raw_dir, "/sys/kernel/shards")


def test_unreadable_boxes_stop_the_run_by_their_name(tmp_path):
    raw_dir = tmp_path / "raw"
    class_folders(raw_dir / "train", classes=2, images=2)
    class_folders(raw_dir / "validation", classes=2, images=1)
    (raw_dir / "bounding_boxes/class0").mkdir(parents=True)
    (raw_dir / "bounding_boxes/class0/0_1.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"class0/0_1.xml cannot be read"):
        write(raw_dir, tmp_path / "shards", processes=2)
    with pytest.raises(FileNotFoundError, match="no finished shards"):
        read_manifest(tmp_path / "shards")


LEFT_BEHIND = (
    ".train-00001-of-00002.0a.tmp",
    ".classes.123.tsv",
    ".manifest.123.json",
    "train-00001-of-00002.0a.tmp",  # as on HDFS, like those below
    "classes.tsv.0a.tmp",
    "manifest.json.0a.tmp",
)


def test_interrupted_run_is_no_set_and_the_next_one_completes_it(raw_dir, tmp_path):
    def interrupt(tasks, total):
        yield next(tasks)
        raise KeyboardInterrupt

    def count(tasks, total):
        missing.append(total)
        return tasks

    missing = []
    with pytest.raises(KeyboardInterrupt):
        write(raw_dir, tmp_path / "cut", progress=interrupt)
    with pytest.raises(FileNotFoundError, match="no finished shards"):
        read_manifest(tmp_path / "cut")
    for name in LEFT_BEHIND:
        (tmp_path / "cut" / name).write_bytes(b"of a process killed in between")
    write(raw_dir, tmp_path / "cut", progress=count)
    write(raw_dir, tmp_path / "whole", progress=count)
    assert missing == [2, 3]  # shards: the first one stood
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    (tmp_path / "cut/unfinished").mkdir()  # as if killed between its last file and it
    write(raw_dir, tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"check": "none"}, 'check: "none" is not one of full, header'),
        ({"quarantine_budget": 2}, "quarantine_budget: 2 is not from 0 to 1"),
        ({"processes": -1}, "processes: -1 is below 0"),
        ({"store_short_side": -1}, "store_short_side: -1 is below 0"),
        ({"store_quality": 101}, "store_quality: 101 is not from 1 to 100"),
    ],
)
def test_bad_parameter_is_named_before_anything_is_written(raw_dir, tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        write(raw_dir, tmp_path / "shards", **change)
    assert not (tmp_path / "shards").exists()


# Finished sets


def test_second_run_does_nothing(raw_dir, tmp_path):
    first = write(raw_dir, tmp_path / "shards")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    assert write(raw_dir, tmp_path / "shards", processes=2) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()} == times


def test_other_parameters_or_images_are_refused(raw_dir, tmp_path):
    write(raw_dir, tmp_path / "shards")
    with pytest.raises(ValueError, match="with seed 0, not 1: delete it or name another data_dir"):
        write(raw_dir, tmp_path / "shards", seed=1)
    (raw_dir / "class0/new.jpg").write_bytes(jpeg(8, 8))
    with pytest.raises(ValueError, match="with other images: delete it"):
        write(raw_dir, tmp_path / "shards")


@pytest.mark.parametrize("finished", [True, False])
def test_an_image_that_changed_at_equal_size_is_noticed(raw_dir, tmp_path, finished):
    data_dir = tmp_path / "shards"
    write(raw_dir, data_dir)
    (path,) = raw_dir.glob("class0/0_0.jpg")
    kept, other = path.read_bytes(), bytearray(path.read_bytes())
    other[-10] ^= 255
    path.write_bytes(other)
    if not finished:
        unfinished(data_dir)
    with pytest.raises(ValueError, match="holds shards of images that have changed since: ") as e:
        write(raw_dir, data_dir)
    assert "\n" not in str(e.value)
    path.write_bytes(kept)
    write(raw_dir, data_dir)


@pytest.mark.parametrize("finished", [True, False])
def test_images_copied_elsewhere_are_the_same_images(raw_dir, tmp_path, finished):
    """With other times: their bytes are compared, once."""
    data_dir = tmp_path / "shards"
    first = write(raw_dir, data_dir)
    before = shard_bytes(data_dir)
    shutil.copytree(raw_dir, tmp_path / "copy", copy_function=shutil.copyfile)
    if not finished:
        unfinished(data_dir)
    again = write(tmp_path / "copy", data_dir)
    assert again["source_times"] != first["source_times"]
    assert again["fingerprint"] == first["fingerprint"]
    assert shard_bytes(data_dir) == before
    seen = []
    write(tmp_path / "copy", data_dir, progress=lambda tasks, total: seen.append(total) or tasks)
    assert not seen  # nothing is read a third time


def unfinished(data_dir):
    """Turn the finished set into one that was interrupted before its manifest."""
    folder, manifest = storage.folder(data_dir), read_manifest(data_dir)
    (Path(data_dir) / "unfinished").mkdir()
    for entry in manifest_writer._entries(manifest):
        manifest_writer.record(folder, entry)
    manifest_writer._start(folder, manifest)
    (Path(data_dir) / "manifest.json").unlink()


def test_shards_of_others_are_left_alone(raw_dir, tmp_path):
    data_dir = tmp_path / "shards"
    data_dir.mkdir()
    (data_dir / "train-00000-of-01024").write_bytes(b"half a day's work")
    with pytest.raises(ValueError, match="shards without a manifest.json"):
        write(raw_dir, data_dir)
    assert contents(data_dir) == {"train-00000-of-01024": b"half a day's work"}


def test_manifest_of_the_first_versions_is_read(raw_dir, tmp_path):
    (raw_dir / "class0/odd.jpg").write_bytes(png(20, 30))
    written = write(raw_dir, tmp_path / "shards")
    old = {"mended" if key == "reencoded" else key: value for key, value in written.items()}
    (tmp_path / "shards/manifest.json").write_text(json.dumps(old))
    assert read_manifest(tmp_path / "shards") == written
    assert write(raw_dir, tmp_path / "shards") == written


def test_absent_and_foreign_manifests_get_one_line(tmp_path):
    remedy = r"run notebook 01 \(python -m kit run --recipe NAME --only 01\)"
    with pytest.raises(FileNotFoundError, match=remedy):
        read_manifest(tmp_path)
    for text in ("", "[]", "{}", '{"name": "web app"}'):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match="is no manifest of shards"):
            read_manifest(tmp_path)


def test_lost_and_cut_shards_are_named_and_written_again(tmp_path):
    data_dir = make_shards(tmp_path)
    before = contents(data_dir)
    first, second = map(Path, shard_paths(data_dir, "train"))
    second.write_bytes(second.read_bytes()[:-1])
    with pytest.raises(ValueError, match="train-00001-of-00002 has .* bytes, its manifest says"):
        shard_paths(data_dir, "train")
    first.unlink()
    with pytest.raises(FileNotFoundError, match="train-00000-of-00002 of the manifest is missing"):
        shard_paths(data_dir, "train")
    kept = data_dir / "validation-00000-of-00001"
    written = kept.stat().st_mtime_ns
    write(tmp_path / "raw", data_dir)
    assert contents(data_dir) == before
    assert kept.stat().st_mtime_ns == written


# Smaller images


def test_larger_images_are_stored_at_the_short_side_in_both_splits(tmp_path):
    raw_dir = class_folders(tmp_path / "raw", classes=2, images=3, size=(48, 64))
    for label in (0, 1):
        (raw_dir / f"class{label}/small.jpg").write_bytes(jpeg(20, 90, seed=50 + label))
        (raw_dir / f"class{label}/tall.jpg").write_bytes(jpeg(96, 48, seed=60, mode="L"))
    index = index_of(raw_dir)
    manifest = write(raw_dir, tmp_path / "shards", store_short_side=32, store_quality=80)
    assert manifest["parameters"]["store_short_side"] == 32
    entries = [shard for part in manifest["splits"].values() for shard in part["shards"]]
    assert sum(entry["smaller"] for entry in entries) == len(index.images) - 2
    for split in ("train", "validation"):
        for folder, name, _, encoded in read_back(tmp_path / "shards", split):
            original = (raw_dir / folder / name).read_bytes()
            sides = picture_size(encoded)
            if name == "small.jpg":
                assert encoded == original
            else:
                assert sides == {"tall.jpg": (32, 64)}.get(name, (43, 32))
                assert abs(grey_mean(encoded) - grey_mean(original)) < 2


def test_header_fields_describe_the_stored_image(tmp_path):
    raw_dir = class_folders(tmp_path / "raw", classes=2, images=3, size=(48, 64))
    write(raw_dir, tmp_path / "shards", store_short_side=32)
    for path in (tmp_path / "shards").glob("train-*"):
        for record in tf.data.TFRecordDataset(str(path)):
            feature = tf.train.Example.FromString(record.numpy()).features.feature
            width = feature["image/width"].int64_list.value[0]
            height = feature["image/height"].int64_list.value[0]
            assert picture_size(feature["image/encoded"].bytes_list.value[0]) == (width, height)


def test_stores_of_another_size_are_refused(raw_dir, tmp_path):
    write(raw_dir, tmp_path / "shards", store_short_side=32)
    with pytest.raises(ValueError, match="with store_short_side 32, not 0: delete it or name"):
        write(raw_dir, tmp_path / "shards")
