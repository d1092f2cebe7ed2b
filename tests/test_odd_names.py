"""Folders whose names TensorFlow or a shell may take for patterns; a locale of ASCII alone."""

import os
import subprocess
import sys

import numpy as np
import pytest

from kit import ROOT
from kit.data.manifest import read_manifest
from kit.pipeline.undecodable import naming_undecodable
from kit.prep import near_duplicates
from kit.prep.verify import verify
from tests.images import class_folders, prepare
from tests.small_training import train, training_data, untrained, validation_data

ODD = "a [1] *? ~ é 漢 {a,b} b\\s"
NAMES = ("größe [1]", "猫 *", "$x$ ~")


def test_data_in_a_folder_of_any_name_is_prepared_verified_and_trained_on(tmp_path):
    raw_dir = class_folders(tmp_path / ODD / "raw [a]", 3, 12)
    data_dir = tmp_path / ODD / "shards [b] ?"
    prepare(raw_dir, data_dir)
    prepare(raw_dir, data_dir)  # finds what is there
    assert prepare(raw_dir, tmp_path / "plain")["splits"] == read_manifest(data_dir)["splits"]
    assert verify(data_dir, processes=1)["splits"]["train"]["images"] == 24
    assert near_duplicates.find(data_dir, processes=1) == []
    for read in (lambda of: training_data(of).batches(), validation_data):
        (ours, _), (plain, _) = (next(iter(read(of))) for of in (data_dir, tmp_path / "plain"))
        np.testing.assert_array_equal(ours, plain)
    with naming_undecodable(data_dir):
        history = train(untrained(), data_dir, tmp_path / ODD / "run", epochs=1).history
    assert np.isfinite(history["loss"]).all() and np.isfinite(history["val_top1"]).all()


ASCII = """
import locale, sys
from pathlib import Path
from kit import params, plots
from kit.data.manifest import class_counts, class_names, read_manifest
from kit.evaluation import model_card, predictions, scores
from kit.files import write_json
from kit.inference.classifier import load_model
from kit.prep.verify import verify
from kit.training import trainer
from tests.images import prepare
from tests.small_training import NETWORK, compiled, train, validation_data

if __name__ == "__main__":
    assert locale.getpreferredencoding() == "ANSI_X3.4-1968"
    raw_dir, scratch = map(Path, sys.argv[1:])
    data_dir, run_dir = scratch / "shards", scratch / "run"
    prepare(raw_dir, data_dir, processes=2)
    verify(data_dir, processes=2)
    names = [name.name for name in class_names(data_dir)]
    model, manifest = compiled(), read_manifest(data_dir)
    train(model, data_dir, run_dir, epochs=1)
    values = params.load().values | {"evaluation_size": 0}
    values |= {name: NETWORK[name] for name in ("stage_sizes", "image_size", "resize_side")}
    trainer.save_model(model, run_dir=run_dir, manifest=manifest, parameters=values)
    plots.save(plots.class_balance(class_counts(manifest), names), run_dir, "balance")
    model, metadata = load_model(run_dir)
    found = predictions.predict(model, validation_data(data_dir), images=12, data_dir=data_dir)
    results = scores.evaluate(*found, metadata["classes"])
    results |= {"shards": manifest["fingerprint"], "model": metadata["sha256"]}
    write_json(run_dir / "evaluation.json", results)
    model_card.write_card(run_dir)
"""


@pytest.mark.slow
def test_names_beyond_ascii_are_kept_under_a_locale_of_ascii_alone(tmp_path):
    for number, folder in enumerate(sorted(class_folders(tmp_path / "raw", 3, 12).iterdir())):
        folder.rename(folder.with_name(NAMES[number]))
    (tmp_path / "program.py").write_text(ASCII, encoding="utf-8")  # spawned processes import it
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", tmp_path / "raw", tmp_path],
        env=os.environ | ascii_alone | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = {row["name"] for row in read_manifest(tmp_path / "shards")["classes"]}
    assert found == set(NAMES)
    card = (tmp_path / "run/model_card.md").read_text(encoding="utf-8")
    assert "größe" in card and "猫" in card
