"""A file system that is full: the file and the remedy are named, and what was there stays.

Exports on one are in test_export.py, checkpoints in test_resume_kill.py.
"""

import os

import numpy as np
import pytest
import tensorflow as tf
from nbformat.v4 import new_markdown_cell

from kit.evaluation import comparison
from kit.files import hash_file
from kit.inference import batch, journal
from kit.plots import style
from kit.prep import demo
from kit.runner import report
from tests.images import jpeg
from tests.test_report import write_executed


def write_report(folder):
    report.write_report(folder)


def write_predictions(folder):
    labels = np.zeros(9_000, int)
    comparison.write_predictions(folder, ["an image"] * len(labels), labels, np.zeros([9_000, 2]))


def write_figure(folder):
    figure, ((axes,),) = style.new_figure(6, 6)
    axes.imshow(np.random.default_rng(0).random([400, 400]))
    style.save(figure, folder, "noise")


def write_photos(folder):
    names = [f"{number}.jpg".encode() for number in range(20)]
    image = {"encoded": [jpeg(300, 300)] * 20, "filename": names, "label": [0] * 20}
    batch.write_photos(tf.data.Dataset.from_tensor_slices(image), folder / "photos")


def write_answers(folder):
    journal.append(folder / "photos.journal", [{"photo": "x" * 100_000}])


def write_demo(folder):
    demo.make_demo(raw_dir=folder / "raw", demo_views=40, seed=0)


WRITERS = {  # and what they name
    write_report: "report.html",
    write_predictions: "predictions.csv",
    write_figure: "figures/noise.png",
    write_photos: r"photos/\d\d_\d+.jpg",
    write_answers: "photos.journal",
    write_demo: "raw",
}


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_names_the_file_and_the_remedy_and_leaves_what_was_there(small_disk, write):
    write_executed(small_disk, "02_training", new_markdown_cell("# Training"))
    for name in ("report.html", "predictions.csv"):
        (small_disk / name).write_text("an earlier one")
    room = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "filler").write_bytes(bytes(room - 20_000))
    before = {path: hash_file(path) for path in small_disk.rglob("*.*") if path.is_file()}
    line = rf"/{WRITERS[write]} cannot be written \(No space left on device\): make room, and run"
    with pytest.raises(OSError, match=line) as error:
        write(small_disk)
    assert "\n" not in str(error.value)
    found = {path: hash_file(path) for path in small_disk.rglob("*.*") if path.is_file()}
    assert {path: found.get(path) for path in before} == before
    if write in (write_report, write_predictions, write_figure):
        assert found == before  # no half one either, under any name
    else:  # what the next run empties, or reads up to its last whole line
        (small_disk / "filler").unlink()
        write(small_disk)
