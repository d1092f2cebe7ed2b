import json
import os
import time

import numpy as np
import pytest

from kit.inference import export, latency
from kit.inference.classifier import THREADS, Classifier
from kit.machine import cores
from tests import images
from tests.exported import NAMES, SIZE, pixels, write_run

PHOTOS = [b"1", b"2", b"3"]


def slow(milliseconds):
    return lambda argument: time.sleep(milliseconds / 1000) or np.zeros([1, 1])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    run_dir = write_run(tmp_path_factory.mktemp("run"))
    export.export_all(run_dir, ["saved_model"])
    return latency.backends(run_dir)[0]


def test_every_way_gives_the_same_probabilities(found):
    assert {"model.predict", "tf.function", "SavedModel"} <= found.keys()
    photo = images.jpeg(50, 60)
    rows = [forward(image(photo)[np.newaxis]) for image, forward in found.values()]
    for row in rows:
        assert row.shape == (1, len(NAMES))
        np.testing.assert_allclose(row, rows[0], atol=1e-5)


def test_export_of_an_older_training_is_not_timed(tmp_path):
    run_dir = write_run(tmp_path)
    export.export_all(run_dir, ["saved_model"])
    assert "SavedModel" in latency.backends(run_dir)[0]
    write_run(tmp_path, seed=1)
    assert "SavedModel" not in latency.backends(run_dir)[0]


@pytest.mark.parametrize("harm", ["changed", "without metadata"])
def test_unfit_export_is_left_out_with_a_line_that_says_so(tmp_path, harm):
    run_dir = write_run(tmp_path)
    export.export_all(run_dir, ["saved_model"])
    if harm == "changed":
        (run_dir / "export" / "saved_model" / "added").touch()
    else:
        (run_dir / "export" / "saved_model.json").unlink()
    found, (line,) = latency.backends(run_dir)
    assert "SavedModel" not in found
    assert line.startswith("not timed: ") and "notebook 04" in line and "or delete" in line


def test_device_counts_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(latency.tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(os, "cpu_count", lambda: 1000)
    assert latency.device() == f"CPU, {cores()} cores"
    assert 2 * cores() == THREADS


def test_xla_gives_the_same_probabilities(tmp_path):
    classifier = Classifier.from_run_dir(write_run(tmp_path))
    through_xla = latency._through_xla(classifier.model, SIZE)
    for number in (1, 3):
        shown = pixels(number)
        np.testing.assert_allclose(through_xla(shown), classifier.forward(shown), atol=1e-5)


def test_stages_take_the_time_that_they_take():
    ways = {"quick": (slow(2), slow(5)), "slow": (slow(2), slow(40))}
    times = latency.time_in_turns(ways, PHOTOS, latency_runs=6)
    quick, late = np.median(times["quick"], axis=0), np.median(times["slow"], axis=0)
    assert quick[0] >= 2
    assert 5 <= quick[1] < 40 <= late[1]
    for rows in times.values():
        assert rows.shape == (6, len(latency.STAGES))
        np.testing.assert_allclose(rows[:, 0] + rows[:, 1], rows[:, 2], atol=1e-6)


def test_backends_take_turns_on_the_same_photographs():
    order = []
    ways = {
        name: (lambda photo, n=name: order.append((n, photo)) or np.zeros(1), len) for name in "ab"
    }
    latency.time_in_turns(ways, PHOTOS, latency_runs=latency.TURN + 3)
    turns = [name for name, _ in order]
    first, second = latency.WARM_UP + latency.TURN, latency.WARM_UP + 3
    assert turns == ["a"] * first + ["b"] * first + ["a"] * second + ["b"] * second
    timed = [photo for name, photo in order if name == "a"]
    cycle = [PHOTOS[n % 3] for n in range(latency.TURN + 3)]
    assert timed[latency.WARM_UP : first] + timed[first + latency.WARM_UP :] == cycle


def test_summary_holds_the_percentiles_and_the_fastest():
    hundred = np.arange(101.0)[:, np.newaxis] * [1, 2, 3]
    measured = latency.summarise({"slow": hundred + 50, "quick": hundred}, image_size=64)
    assert measured["forms"]["quick"] == {
        "decode_resize": {"p50": 50, "p90": 90, "p99": 99},
        "forward": {"p50": 100, "p90": 180, "p99": 198},
        "total": {"p50": 150, "p90": 270, "p99": 297},
    }
    assert measured["fastest"] == "quick"
    assert measured["total"] == measured["forms"]["quick"]["total"]
    assert (measured["runs"], measured["image_size"]) == (101, 64) and measured["device"]
    assert json.loads(json.dumps(measured)) == measured


def test_throughput_counts_images_whatever_the_batch():
    sizes = []
    ways = {"even": (None, lambda batch: sizes.append(len(batch)) or time.sleep(0.02 * len(batch)))}
    rates = latency.throughput(ways, pixels(3), batches=(1, 5), rounds=2)
    assert set(sizes) == {1, 5}
    assert rates["even"].keys() == {1, 5}
    for rate in rates["even"].values():
        assert 20 < rate <= 50
