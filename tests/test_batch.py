import csv
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kit import ROOT
from kit.data.cells import original
from kit.inference import batch
from kit.inference.classifier import BATCH, Classifier
from kit.inference.table import check_table
from kit.pipeline.dataset import encoded_examples
from tests import images
from tests.test_classifier import COLOURS, colour_model, metadata, solid, write_run

PLAIN = {"red.png": (255, 0, 0), "green.png": (0, 255, 0), "blue.png": (0, 0, 255)}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return Classifier.from_run_dir(write_run(tmp_path_factory.mktemp("run"), colour_model()))


def write_photos(root, count):
    """Write `count` small photographs in three folders."""
    for number in range(count):
        path = root / f"{number % 3}" / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.jpeg(20, 24, seed=number))
    return root


def read(table):
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def answers(rows):
    return [(row["photo"], row["problem"], row["name_1"], row["label_2"]) for row in rows]


def test_files_come_sorted_from_all_folders_without_hidden_ones(tmp_path):
    for name in ("b.JPG", "a/c.png", "a/notes.txt", ".hidden.jpg", ".cache/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in batch.find_photos(tmp_path)]
    assert found == ["a/c.png", "a/notes.txt", "b.JPG"]
    assert batch.find_photos(str(tmp_path / "b.JPG")) == [tmp_path / "b.JPG"]


@pytest.mark.parametrize("photos", ["", "no/such/photo.jpg"])
def test_absent_photos_are_named(photos):
    with pytest.raises(FileNotFoundError, match=f'photos: "{photos}" is not there'):
        batch.find_photos(photos)


@pytest.mark.parametrize("names", [[], ["notes.txt"], [".hidden.jpg"]])
def test_folder_without_an_image_is_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("none")
    with pytest.raises(ValueError, match="no image in"):
        batch.find_photos(tmp_path)


@pytest.mark.parametrize(
    "place, reason",
    [
        ("answers.txt", r"ends neither in .csv nor in .parquet"),
        ("file/answers.csv", r'answers\.csv" cannot be written \('),
        ("folder.csv", r"cannot be written \(it is a folder\)"),
        ("/proc/answers.csv", r"cannot be written \("),
        ("a" * 201 + ".csv", r"has a name of more than 200 bytes; take a shorter one"),
        ("a" * 256 + "/answers.csv", r"cannot be written \(File name too long\)"),
    ],
)
def test_table_that_cannot_be_written_is_refused_first(tmp_path, place, reason):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises((ValueError, OSError), match=f"predictions: .*{reason}") as error:
        check_table(tmp_path / place)
    assert "\n" not in str(error.value)


def test_checked_table_leaves_what_was_there_and_makes_no_folder(tmp_path):
    (tmp_path / "a.csv").write_text("earlier")
    check_table(tmp_path / "a.csv")
    check_table(tmp_path / "new" / "b.csv")
    assert (tmp_path / "a.csv").read_text() == "earlier"
    assert {path.name for path in tmp_path.rglob("*")} == {"a.csv"}


def test_table_has_a_row_for_each_file_and_says_what_was_wrong(classifier, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, colour in PLAIN.items():
        (photos / name).write_bytes(solid(colour, "PNG"))
    (photos / "cut.jpg").write_bytes(images.jpeg(90, 90)[:-300])
    (photos / "notes.txt").write_text("none")
    (photos / "empty.jpg").touch()
    (photos / ".hidden.jpg").touch()
    (photos / "nowhere.jpg").symlink_to("gone")
    (photos / "circle.jpg").symlink_to("circle.jpg")
    os.mkfifo(photos / "pipe.jpg")
    odd = photos / os.fsdecode(b"odd\xff\n.png")
    odd.symlink_to(photos / "red.png")
    table = tmp_path / "new" / "answers.csv"
    found = batch.classify_folder(classifier, photos, predictions=str(table), top_k=2)
    rows = {row["photo"]: row for row in read(table)}
    assert found == {
        "photos": 10,
        "resumed": 0,
        "problems": {
            "circle.jpg": "not a regular file",
            "cut.jpg": "truncated or damaged",
            "empty.jpg": "empty file",
            "notes.txt": "not an image",
            "nowhere.jpg": "not a regular file",
            "pipe.jpg": "not a regular file",
        },
        "readable": sorted([*(photos / name for name in PLAIN), odd]),
        "reasons": {
            "classified": 4,
            "truncated or damaged": 1,
            "empty file": 1,
            "not an image": 1,
            "not a regular file": 3,
            "hidden": 1,
        },
    }
    assert {name: row["problem"] for name, row in rows.items() if row["problem"]} == found[
        "problems"
    ]
    assert list(rows["cut.jpg"].values())[2:] == [""] * 6
    assert rows["odd\ufffd\ufffd.png"]["name_1"] == "red"
    for name in PLAIN:
        row = rows[name]
        assert row["name_1"] == COLOURS[int(row["label_1"])] == name.removesuffix(".png")
        shares = classifier.probabilities([photos / name])[0]
        assert float(row["probability_1"]) == pytest.approx(shares.max(), rel=1e-5)
    assert [path.name for path in table.parent.iterdir()] == ["answers.csv"]


def test_odd_spaces_joiners_and_quotes_in_names_are_kept(classifier, tmp_path):
    names = ["at 9.41\u202fAM.png", "a\xa0b.png", "\u3000c.png", "d\u200de.png", 'f,"g.png']
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(solid((255, 0, 0), "PNG"))
    table = tmp_path / "a.csv"
    batch.classify_folder(classifier, tmp_path / "photos", predictions=table, top_k=1)
    assert sorted(row["photo"] for row in read(table)) == sorted(names)


def test_formulas_in_names_are_harmless_in_a_spreadsheet_and_read_back(tmp_path):
    names = ["=1+1.png", "-a.png", "@b.png", "+c.png", "'=d.png", "plain.png"]
    classes = [{"name": f"={colour}"} for colour in COLOURS]
    classifier = Classifier.from_model(colour_model(), metadata(classes=classes))
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(solid((255, 0, 0), "PNG"))
    table = tmp_path / "a.csv"
    batch.classify_folder(classifier, tmp_path / "photos", predictions=table, top_k=1)
    rows = read(table)
    assert not [c for row in rows for c in row.values() if c.startswith(tuple("=+-@\t\r"))]
    assert sorted(original(row["photo"]) for row in rows) == sorted(names)
    assert {original(row["name_1"]) for row in rows} == {"=red"}


SLOW_WRITER = """
import sys, time
import numpy as np
from kit.data.cells import original
from kit.inference import batch
from kit.inference.classifier import Classifier

def network(pixels):
    time.sleep(0.05)
    return np.full([len(pixels), 2], 0.5, np.float32)

classes = [{"name": "a"}, {"name": "b"}]
classifier = Classifier(network, {"classes": classes, "image_size": 8, "resize_side": 8})
batch.classify_folder(classifier, sys.argv[1], predictions=sys.argv[2])
"""


@pytest.mark.parametrize("round", range(3))
def test_of_two_writers_of_a_table_one_is_refused_and_no_row_is_lost(tmp_path, round):
    photos, table = write_photos(tmp_path / "photos", 8 * BATCH), tmp_path / "a.csv"
    command = [sys.executable, "-c", SLOW_WRITER, str(photos), str(table)]
    pair = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in pair]
    assert sorted(process.returncode for process in pair) == [0, 1], errors
    refused = max(errors, key=len).strip().splitlines()[-1]
    assert f'predictions: "{table}" is being written by process' in refused
    assert len({row["photo"] for row in read(table)}) == len(read(table)) == 8 * BATCH


def test_a_row_lost_on_the_way_is_noticed_before_the_table_is_put_in_place(
    classifier, tmp_path, monkeypatch
):
    photos, table = write_photos(tmp_path / "photos", 3), tmp_path / "a.csv"
    append = batch.journal.append
    monkeypatch.setattr(batch.journal, "append", lambda path, rows: append(path, rows[1:]))
    with pytest.raises(ValueError, match=r"1 of 3 images have no row .* 0/000\.jpg"):
        batch.classify_folder(classifier, photos, predictions=table)
    assert not table.exists()


def test_written_photos_keep_their_ending_however_long_the_name(tmp_path):
    names = ["a.JPEG", "x" * 250 + ".JPEG", "é" * 125 + ".png"]
    features = {"filename": names, "encoded": ["1", "2", "3"], "label": [0, 1, 0]}
    labels = batch.write_photos(tf.data.Dataset.from_tensor_slices(features), tmp_path / "photos")
    assert [path.suffix for path in labels] == [".JPEG", ".JPEG", ".png"]
    assert [path.read_bytes() for path in labels] == [b"1", b"2", b"3"]
    assert [len(os.fsencode(path.name)) for path in labels] == [9, 255, 255]


def test_linked_and_unreadable_folders_are_problems(classifier, tmp_path, monkeypatch):
    photos, scandir = write_photos(tmp_path / "photos", 3), os.scandir
    (photos / "linked").symlink_to(photos / "0")
    (photos / "shut").mkdir()
    (photos / "shut" / "a.jpg").write_bytes(images.jpeg(20, 24))

    def refuse(path):  # root may read what has no permissions
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = batch.classify_folder(classifier, photos, predictions=tmp_path / "a.csv", top_k=1)
    assert found["photos"] == len(read(tmp_path / "a.csv")) == 5
    assert found["problems"] == {
        "linked": "a linked folder, which is not followed",
        "shut": "Permission denied",
    }


def test_strip_that_the_resize_would_blow_up_is_a_problem_of_its_own(classifier, tmp_path):
    photos = write_photos(tmp_path / "photos", 2)
    Image.new("RGB", (65_500, 1)).save(photos / "strip.jpg")
    found = batch.classify_folder(classifier, photos, predictions=tmp_path / "a.csv", top_k=1)
    assert found["photos"] == 3
    assert found["problems"] == {"strip.jpg": "a strip of 65500 x 1 pixels, over 100 : 1"}


def test_folder_of_which_nothing_can_be_read_fails_once_its_table_says_why(classifier, tmp_path):
    (tmp_path / "a.jpg").write_text("none")
    table = tmp_path / "new" / "a.csv"
    with pytest.raises(ValueError, match=r"none of 1 can .* a\.jpg \(not an image\)"):
        batch.classify_folder(classifier, tmp_path, predictions=table, top_k=1)
    assert [row["problem"] for row in read(table)] == ["not an image"]


def test_written_photographs_are_the_shards_and_nothing_older(tmp_path):
    data_dir = images.make_shards(tmp_path)
    examples = list(encoded_examples(data_dir=data_dir, split="validation"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "older.jpg").touch()
    dataset = encoded_examples(data_dir=data_dir, split="validation").take(2)
    labels = batch.write_photos(dataset, tmp_path / "photos")
    written = batch.find_photos(tmp_path / "photos")
    assert labels == {
        path: int(example["label"]) for path, example in zip(written, examples, strict=False)
    }
    assert [path.read_bytes() for path in written] == [
        example["encoded"].numpy() for example in examples[:2]
    ]
    assert written[1].name == f"01_{examples[1]['filename'].numpy().decode()}"


def test_one_file_is_a_table_of_one_row(classifier, tmp_path):
    (tmp_path / "red.png").write_bytes(solid((255, 0, 0), "PNG"))
    table = tmp_path / "answers.csv"
    batch.classify_folder(classifier, tmp_path / "red.png", predictions=table, top_k=9)
    (row,) = read(table)
    assert [row["photo"], row["name_1"], row["label_3"]] == ["red.png", "red", "2"]


def test_the_table_itself_is_no_photograph(classifier, tmp_path):
    photos = write_photos(tmp_path, 3)
    for _ in range(2):
        batch.classify_folder(classifier, photos, predictions=photos / "a.csv", top_k=1)
    assert len(read(photos / "a.csv")) == 3
    assert len(batch.find_photos(photos, str(photos / "a.csv"))) == 3


def test_readable_is_told_by_the_path_and_not_by_the_name_alone(classifier, tmp_path):
    photos = tmp_path / "photos"
    for name, data in (("a", b"none"), ("b", images.jpeg(20, 24))):
        (photos / name).mkdir(parents=True)
        (photos / name / "1.jpg").write_bytes(data)
    found = batch.classify_folder(classifier, photos, predictions=photos / "a.csv", top_k=1)
    assert found["readable"] == [photos / "b" / "1.jpg"]


def stop_after(count):
    """A progress that interrupts the run once so many answers have come."""

    def progress(rows, total):
        for number, row in enumerate(rows, 1):
            yield row
            if number == count:
                raise KeyboardInterrupt

    return progress


def test_progress_sees_each_answer(classifier, tmp_path):
    seen = []

    def progress(rows, total):
        seen.append(total)
        for row in rows:
            seen.append(row["photo"])
            yield row

    photos = write_photos(tmp_path / "photos", 5)
    batch.classify_folder(
        classifier, photos, predictions=tmp_path / "a.csv", top_k=1, progress=progress
    )
    assert seen == [5, "0/000.jpg", "0/003.jpg", "1/001.jpg", "1/004.jpg", "2/002.jpg"]


@pytest.mark.parametrize("torn", [1, 40, 900, 10**6])
def test_interrupted_run_goes_on_behind_its_last_whole_line(classifier, tmp_path, torn):
    count = 2 * BATCH + 7
    photos = write_photos(tmp_path / "photos", count)
    call = {"classifier": classifier, "photos": photos, "top_k": 2}
    batch.classify_folder(**call, predictions=tmp_path / "whole.csv")
    table = tmp_path / "cut.csv"
    with pytest.raises(KeyboardInterrupt):
        batch.classify_folder(**call, predictions=table, progress=stop_after(BATCH + 1))
    assert not table.exists()
    journal = tmp_path / ".cut.csv.journal"
    data = journal.read_bytes()
    journal.write_bytes(data[: max(0, len(data) - torn)])
    whole_lines = max(0, journal.read_bytes().count(b"\n") - 1)
    found = batch.classify_folder(**call, predictions=table)
    assert (found["photos"], found["resumed"]) == (count, whole_lines)
    assert answers(read(table)) == answers(read(tmp_path / "whole.csv"))
    assert not journal.exists()


def test_journal_of_another_run_is_refused_and_kept(classifier, tmp_path):
    photos = write_photos(tmp_path / "photos", 40)
    table = tmp_path / "a.csv"
    call = {"classifier": classifier, "photos": photos, "predictions": table}
    with pytest.raises(KeyboardInterrupt):
        batch.classify_folder(**call, top_k=2, progress=stop_after(3))
    kept = (tmp_path / ".a.csv.journal").read_bytes()
    same = {"sha256": classifier.metadata["sha256"]}
    other = Classifier.from_model(colour_model(), metadata(sha256="0"))
    larger = Classifier.from_model(colour_model(), metadata(**same, resize_side=50))
    changes = [{"classifier": one} for one in (other, larger)]
    for change in (*changes, {"top_k": 3}, {"photos": photos / "1"}):
        with pytest.raises(ValueError, match=r"\.a\.csv\.journal\" is of an unfinished run"):
            batch.classify_folder(**{**call, "top_k": 2, **change})
    assert (tmp_path / ".a.csv.journal").read_bytes() == kept
    assert batch.classify_folder(**call, top_k=2)["resumed"] == BATCH


def test_resumed_run_looks_again_at_what_has_changed(classifier, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(BATCH + 1):
        (photos / f"{number:03}.png").write_bytes(solid((255, 0, 0), "PNG"))
    (photos / "000.link").symlink_to("gone")
    call = {"classifier": classifier, "photos": photos, "predictions": tmp_path / "a.csv"}
    with pytest.raises(KeyboardInterrupt):
        batch.classify_folder(**call, top_k=1, progress=stop_after(1))
    for name in ("000.link", "001.png"):
        (photos / name).unlink()
    (photos / "002.png").write_bytes(solid((0, 255, 0), "PNG"))
    found = batch.classify_folder(**call, top_k=1)
    assert (found["photos"], found["resumed"]) == (BATCH, BATCH - 3)
    rows = {row["photo"]: row["name_1"] for row in read(tmp_path / "a.csv")}
    assert len(rows) == BATCH and not rows.keys() & {"000.link", "001.png"}
    assert (rows.pop("002.png"), {*rows.values()}) == ("green", {"red"})


def test_top_k_under_one_is_refused_before_anything_is_written(classifier, tmp_path):
    photos = write_photos(tmp_path / "photos", 3)
    with pytest.raises(ValueError, match="top_k: 0"):
        batch.classify_folder(classifier, photos, predictions=tmp_path / "a.csv", top_k=0)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_parquet_without_its_package_is_refused_with_the_remedy(tmp_path):
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match=r"needs pyarrow .*pip install -e '.\[parquet\]'"):
            check_table(tmp_path / "a.parquet")


@pytest.mark.slow  # needs pyarrow
def test_parquet_holds_what_the_csv_holds(classifier, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("kit.inference.table.ROWS", 7)
    photos = write_photos(tmp_path / "photos", 20)
    (photos / "cut.jpg").write_bytes(images.jpeg(90, 90)[:-300])
    for name in ("a.csv", "a.parquet"):
        batch.classify_folder(classifier, photos, predictions=tmp_path / name, top_k=2)
    table = parquet.read_table(tmp_path / "a.parquet")
    kinds = ["string", "string", *["int32", "string", "float"] * 2]
    assert [str(kind) for kind in table.schema.types] == kinds
    written = read(tmp_path / "a.csv")
    assert table.column_names == list(written[0])
    assert parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3
    for ours, theirs in zip(table.to_pylist(), written, strict=True):
        share = ours.pop("probability_1"), ours.pop("probability_2")
        theirs = {name: value or None for name, value in theirs.items()} | {
            "problem": theirs["problem"]
        }
        expected = theirs.pop("probability_1"), theirs.pop("probability_2")
        assert {
            name: value if value is None else str(value) for name, value in ours.items()
        } == theirs
        if not ours["problem"]:
            np.testing.assert_allclose(share, np.float64(expected), rtol=1e-6)


PROGRAM = """
import sys
from kit.data.cells import original
from kit.inference import batch
from kit.inference.classifier import Classifier
classifier = Classifier.from_run_dir(sys.argv[1])
batch.classify_folder(classifier, sys.argv[2], predictions=sys.argv[3], top_k=2)
"""


@pytest.mark.slow
def test_killed_runs_lose_no_photograph_and_repeat_none(tmp_path):
    run_dir = write_run(tmp_path / "run", colour_model())
    photos = write_photos(tmp_path / "photos", 480)
    table, journal = tmp_path / "cut.csv", tmp_path / ".cut.csv.journal"
    classifier = Classifier.from_run_dir(run_dir)
    batch.classify_folder(classifier, photos, predictions=tmp_path / "whole.csv", top_k=2)
    command = [sys.executable, "-c", PROGRAM, run_dir, photos, table]
    chance, kills = random.Random(0), 0
    while not table.exists():
        written = journal.stat().st_size if journal.exists() else 0
        more = chance.randrange(1, 12_000)  # bytes of answers before the kill
        run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        while run.poll() is None and (
            not journal.exists() or journal.stat().st_size < written + more
        ):
            time.sleep(0.0005)
        run.kill()
        kills += run.wait() != 0
        assert kills < 60
    assert kills >= 5
    assert answers(read(table)) == answers(read(tmp_path / "whole.csv"))
    assert not journal.exists()
