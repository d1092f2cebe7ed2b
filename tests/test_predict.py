"""`python -m kit predict`, and what it calls."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from kit.__main__ import main
from kit.files import hash_file
from kit.inference import export, predict
from kit.inference.classifier import Classifier, load_model
from kit.inference.formats import FORMATS, is_installed, metadata_path
from kit.model import pretrained
from tests import exported, images

WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None  # to import them is an error
from kit.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


EXTRA = ("model.onnx", "model.tflite")  # written by packages that make setup leaves out
ODD = "~ [a]*? é{b}$x 'c\""  # what functions that expand patterns take for one


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A trained model and its exports in float32."""
    run_dir = exported.write_run(tmp_path_factory.mktemp("predict") / ODD)
    described = json.loads((run_dir / "model.json").read_text())
    described["sha256"] = hash_file(run_dir / "model.keras")
    (run_dir / "model.json").write_text(json.dumps(described))
    here = [form for form, made in FORMATS.items() if all(map(is_installed, made.modules))]
    export.export_all(run_dir, [form for form in ("onnx", "litert", "saved_model") if form in here])
    return run_dir


@pytest.fixture
def exported_run(run_dir):
    """The trained model where both small runtimes are installed; else the test is skipped."""
    for form in ("onnx", "litert"):
        for module in FORMATS[form].modules:
            pytest.importorskip(module)
    return run_dir


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, mode in enumerate(("RGB", "L", "CMYK")):
        (folder / f"{mode}.jpg").write_bytes(images.jpeg(50 + 9 * number, 80, number, mode))
    (folder / "alpha [x].png").write_bytes(images.png(70, 61, 5, "RGBA"))
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.jpg").write_bytes(images.jpeg(50, 60))
    (folder / "inner").mkdir()
    (folder / "inner" / "deep.JPG").write_bytes(images.jpeg(90, 60, 7))
    return folder


NAMES = ["CMYK.jpg", "L.jpg", "RGB.jpg", "alpha [x].png", "inner/deep.JPG"]


def only(run_dir, place, *exports):
    """Copy the run with these exports alone."""
    shutil.copytree(run_dir, place, ignore=lambda _, names: {"export"} & set(names))
    for name in exports:
        (place / "export").mkdir(exist_ok=True)
        for file in (run_dir / "export" / name, metadata_path(run_dir / "export" / name)):
            shutil.copy(file, place / "export")
    return place


def said(capsys):
    found = capsys.readouterr()
    return found.out.splitlines(), found.err.splitlines()


def state(folder):
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_answers_of_an_export_need_no_tensorflow_and_are_the_models(
    exported_run, photos, tmp_path, name
):
    place, here = only(exported_run, tmp_path / "run", name), tmp_path / "here"
    here.mkdir()
    before = state(place)
    command = ["predict", str(photos), "--run-dir", str(place), "--json", "--top-k", "9"]
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *command],
        cwd=here,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    model = Classifier.from_run_dir(exported_run)
    answers = json.loads(found.stdout)
    assert [answer["photo"] for answer in answers] == [str(photos / name) for name in NAMES]
    for answer in answers:
        expected = model.classify(answer["photo"], top_k=9)
        assert [(row["name"], row["label"]) for row in answer["classes"]] == [
            (name, exported.NAMES.index(name)) for name, _ in expected
        ]
        ours = np.log([row["probability"] for row in answer["classes"]])
        theirs = np.log([share for _, share in expected])
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=export.TOLERANCE)
    assert state(place) == before
    assert not list(here.iterdir())


def test_a_line_a_photo_with_names_and_percentages(run_dir, photos, capsys):
    photo = str(photos / "RGB.jpg")
    assert main(["predict", photo, "--run-dir", str(run_dir), "--top-k", "2"]) == 0
    answer = Classifier.from_run_dir(run_dir).classify(photo, top_k=2)
    shares = ", ".join(f"{name} ({100 * share:.1f} %)" for name, share in answer)
    assert said(capsys) == ([f"{photo}: {shares}"], [])


def test_folders_and_patterns_are_what_users_expect(run_dir, photos, capsys):
    def shown(*arguments):
        assert main(["predict", *map(str, arguments), "--run-dir", str(run_dir)]) == 0
        out, err = said(capsys)
        return [line.split(": ")[0].removeprefix(f"{photos}/") for line in out], err

    skipped = ["note: skipped 1: not an image by its name (.txt)", "note: skipped 1: hidden"]
    assert shown(photos) == (NAMES, skipped)
    assert shown(photos / "*.jpg") == (NAMES[:3], [])
    assert shown(photos / "**" / "*.JPG") == (NAMES[4:], [])
    assert shown(photos / "alpha [x].png") == (NAMES[3:4], [])  # a name, not a pattern
    assert shown(photos / "L.jpg", photos / "RGB.jpg") == (NAMES[1:3], [])


def test_a_bad_photo_is_a_line_and_the_others_are_answered(run_dir, photos, tmp_path, capsys):
    (tmp_path / "cut.jpg").write_bytes(images.jpeg(60, 60)[:-200])
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    bad = [str(tmp_path / name) for name in ("cut.jpg", "loop.jpg", "absent.jpg", "no*.jpg")]
    command = ["predict", *bad, str(photos / "L.jpg"), "--run-dir", str(run_dir)]
    assert main(command) == 1
    out, err = said(capsys)
    assert len(out) == 1 and out[0].startswith(f"{photos / 'L.jpg'}: ")
    reasons = ["truncated or damaged", "not a regular file", *["it is not there"] * 2]
    assert err == [f"error: {name}: {why}" for name, why in zip(bad, reasons, strict=True)]
    assert main([*command, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [answer.get("problem") for answer in found] == [*reasons, None]


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["--run-dir", "nothing"], "nothing/model.json is not there: train a model first"),
        (["--weights", "torchvison_v2"], 'weights: "torchvison_v2" is no file of'),
        (["--weights", "my.pth"], 'weights: "my.pth" is a file; they have a name'),
        (["--run-dir", "{run}", "--top-k", "0"], "top_k: 0 names no class; give 1 or more"),
    ],
)
def test_bad_usage_is_two_and_makes_no_folder(
    run_dir, photos, tmp_path, monkeypatch, capsys, arguments, reason
):
    monkeypatch.chdir(tmp_path)
    given = [argument.format(run=run_dir) for argument in arguments]
    assert main(["predict", str(photos / "L.jpg"), *given]) == 2
    out, err = said(capsys)
    assert out == [] and len(err) == 1 and err[0].startswith(f"error: {reason}")
    assert not list(tmp_path.iterdir())


def test_published_weights_name_their_classes_with_nothing_trained(
    run_dir, photos, capsys, monkeypatch
):
    """With a stand-in for what kit.model.pretrained loads, which test_pretrained.py tests."""
    monkeypatch.setattr(pretrained, "load", lambda name: load_model(run_dir))
    photo = str(photos / "RGB.jpg")
    assert main(["predict", photo, "--weights", "torchvision_v2", "--top-k", "1"]) == 0
    ((name, share),) = Classifier.from_run_dir(run_dir).classify(photo, top_k=1)
    assert said(capsys) == ([f"{photo}: {name} ({100 * share:.1f} %)"], [])


def test_a_folder_without_images_is_bad_usage(run_dir, tmp_path, capsys):
    assert main(["predict", str(tmp_path), "--run-dir", str(run_dir)]) == 2
    assert "no image in" in said(capsys)[1][0]


@pytest.mark.parametrize("extra", [[], ["--run-dir", "a", "--weights", "b"]])
def test_one_model_is_named(extra, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["predict", "photo.jpg", *extra])
    assert exit.value.code == 2
    assert "--run-dir" in capsys.readouterr().err


@pytest.mark.slow
def test_the_fastest_is_an_export_and_the_model_where_there_is_none(exported_run, tmp_path):
    assert Classifier.fastest(exported_run).model is None
    plain = Classifier.fastest(only(exported_run, tmp_path / "run"))
    assert plain.model is not None and plain.passed == []


@pytest.mark.slow
def test_an_export_of_another_model_or_a_damaged_one_is_passed_over(exported_run, tmp_path):
    place = only(exported_run, tmp_path / "run", "model.onnx", "model.tflite")
    with (place / "export" / "model.tflite").open("ab") as file:
        file.write(b"more")
    other = exported.write_run(tmp_path / "other", seed=3)
    export.export_all(other, ["onnx"])
    for file in (other / "export").iterdir():
        shutil.copy(file, place / "export")
    found = Classifier.fastest(place)
    assert found.model is not None
    damaged, stale = sorted(found.passed, reverse=True)
    assert "model.tflite is not the file that model.tflite.json tells of" in damaged
    assert "is of another model" in stale and "export the model again" in stale


@pytest.mark.parametrize(
    "name", ["saved_model", *(pytest.param(x, marks=pytest.mark.slow) for x in EXTRA)]
)
def test_an_odd_run_dir_is_a_folder_like_any_other(run_dir, photos, name):
    photo = photos / "RGB.jpg"
    found = Classifier.from_export(run_dir / "export" / name).classify(photo)
    expected = Classifier.from_run_dir(run_dir).classify(photo)
    assert [name for name, _ in found] == [name for name, _ in expected]


@pytest.mark.slow
def test_a_locale_of_ascii_alone_changes_no_answer(exported_run, tmp_path):
    photo = tmp_path / "é [1] ~.jpg"
    photo.write_bytes(images.jpeg(60, 80))
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, "predict", str(photo)]
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = subprocess.run(
        [*command, "--run-dir", str(exported_run), "--top-k", "1"],
        env=os.environ | ascii_alone,
        capture_output=True,
        text=True,
    )
    ((name, share),) = Classifier.fastest(exported_run).classify(photo, top_k=1)
    shown = str(photo).replace("é", "\\xe9")
    assert (found.stdout, found.stderr) == (f"{shown}: {name} ({100 * share:.1f} %)\n", "")


def test_several_paths_are_classified_as_one_each(run_dir, photos):
    model = Classifier.fastest(run_dir)
    paths = [photos / "L.jpg", str(photos / "RGB.jpg")]
    for answer, path in zip(model.classify(paths), paths, strict=True):
        one = model.classify(path)
        assert [name for name, _ in answer] == [name for name, _ in one]
        np.testing.assert_allclose([p for _, p in answer], [p for _, p in one], atol=1e-5)
    assert model.classify([]) == []


def test_a_hostile_name_cannot_steer_the_terminal():
    answer = {"photo": "a\x1b[2J\n.jpg", "classes": [{"name": "b\r\x07", "probability": 0.5}]}
    assert predict.line(answer) == "a\ufffd[2J\ufffd.jpg: b\ufffd\ufffd (50.0 %)"
