import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from kit import ROOT
from kit.files import seal, write_json
from kit.inference import export, formats, sections
from kit.inference.classifier import load_model
from tests.exported import NAMES, SIZE, log_probabilities, pixels, write_run


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    run_dir = write_run(tmp_path_factory.mktemp("run"))
    export.export_all(run_dir, ["saved_model"])
    return run_dir


@pytest.fixture
def copy(exported, tmp_path):
    """An export by itself on another machine: the folder and its metadata, and nothing else."""
    shutil.copytree(exported / "export" / "saved_model", tmp_path / "saved_model")
    shutil.copy(exported / "export" / "saved_model.json", tmp_path / "saved_model.json")
    return tmp_path / "saved_model"


def change(path, **changes):
    beside = formats.metadata_path(path)
    write_json(beside, seal(json.loads(beside.read_text()) | changes))


def test_copied_export_gives_keras_probabilities_for_any_number_of_images(exported, copy):
    network = formats.load(str(copy))
    expected = np.exp(log_probabilities(load_model(exported)[0], pixels(5)))
    for number in (5, 1, 0, 3):
        found = network(pixels(5)[:number])
        assert found.shape == (number, len(NAMES))
        np.testing.assert_allclose(found, expected[:number], atol=1e-6)
    assert network.runtime == "tensorflow"
    assert [row["name"] for row in network.metadata["classes"]] == list(NAMES)


def test_export_may_be_renamed_with_its_metadata(copy):
    other = copy.rename(copy.with_name("flowers"))
    formats.metadata_path(copy).rename(formats.metadata_path(other))
    assert len(formats.load(other)(pixels(1))) == 1


@pytest.mark.parametrize("absent", ["saved_model", "saved_model.json"])
def test_absent_file_is_named(copy, absent):
    path = copy.with_name(absent)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{absent} is not there: export the model first"):
        formats.load(copy)


def test_changed_file_is_refused_before_it_is_loaded(copy):
    weights = copy / "variables" / "variables.data-00000-of-00001"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="variables.data-00000-of-00001 is not the file that"):
        formats.load(copy)


@pytest.mark.parametrize("change_files", ["add", "remove"])
def test_added_or_lacking_file_is_refused(copy, change_files):
    (copy / "assets" / "added").parent.mkdir(exist_ok=True)
    if change_files == "add":
        (copy / "assets" / "added").write_text("")
    else:
        (copy / "fingerprint.pb").unlink()
    with pytest.raises(ValueError, match="is not the file that saved_model.json tells of"):
        formats.load(copy)


def test_class_list_of_another_length_is_refused(copy):
    change(copy, classes=[{"wnid": "n0", "name": "red"}])
    with pytest.raises(ValueError, match="names 1 classes of a network of 5"):
        formats.load(copy)


def test_crop_larger_than_the_resized_photograph_is_refused(copy):
    change(copy, resize_side=SIZE - 1)
    line = "saved_model.json has resize_side 31, under image_size 32: export the model again"
    with pytest.raises(ValueError, match=line):
        formats.load(copy)


def test_asking_and_loading_import_no_runtime_that_is_not_asked_for():
    heavy = {"tensorflow", "keras", "onnxruntime", "openvino", "ai_edge_litert"}
    code = f"import sys, kit.inference.formats; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"form": "saved_model"}'])
def test_foreign_metadata_is_refused_in_one_line(copy, text):
    formats.metadata_path(copy).write_text(text)
    with pytest.raises(ValueError, match="saved_model.json .*export the model again") as error:
        formats.load(copy)
    assert "\n" not in str(error.value)


def test_the_formats_that_a_parameter_may_name_are_there():
    assert tuple(formats.FORMATS) == sections.FORMATS


def test_unknown_form_is_refused(copy):
    change(copy, form="pickle")
    with pytest.raises(ValueError, match="saved_model.json lacks form: it is not this kit's"):
        formats.load(copy)


def test_runtime_that_does_not_read_the_form_is_refused(copy):
    message = 'runtime: "openvino" does not read saved_model: tensorflow'
    with pytest.raises(ValueError, match=message):
        formats.load(copy, runtime="openvino")


def test_absent_runtime_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"onnxruntime is not installed .*pip install -e '\.\["):
        formats.open_export(tmp_path / "model.onnx", {"form": "onnx"})


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros([SIZE, SIZE, 3], np.uint8),
        np.zeros([1, SIZE + 1, SIZE, 3], np.uint8),
        np.zeros([1, SIZE, SIZE, 3], np.float32),
    ],
)
def test_other_pixels_are_refused(copy, wrong):
    with pytest.raises(ValueError, match=r"and saved_model takes uint8 \[any, 32, 32, 3\]"):
        formats.load(copy)(wrong)


@pytest.mark.parametrize("name", [pytest.param("onnx", marks=pytest.mark.slow), "saved_model"])
def test_a_runtimes_own_error_is_one_line(tmp_path, name):
    """Of a file whose hash is right, as one for a newer runtime."""
    path = tmp_path / formats.FORMATS[name].file
    path.mkdir() if name == "saved_model" else path.write_bytes(b"\x08\x0a\n broken")
    described = {"form": name, "image_size": 32, "outputs": 3}
    runtime = next(iter(formats.FORMATS[name].runtimes))
    with pytest.raises(ValueError, match=f"cannot be (loaded by {runtime}|read)") as error:
        formats.open_export(path, described)
    assert "\n" not in str(error.value)
    assert "export the model again" in str(error.value)


def test_a_runtimes_error_on_pixels_is_one_line(tmp_path):
    def run(pixels):
        raise RuntimeError("no memory\n\tfor a node\n" + 1000 * "x")

    network = formats.Network(tmp_path / "m.onnx", {"image_size": 1, "outputs": 1}, "any", run)
    with pytest.raises(ValueError, match="m.onnx cannot be run by any .no memory for a node") as e:
        network(np.zeros((1, 1, 1, 3), np.uint8))
    assert "\n" not in str(e.value) and len(str(e.value)) < 600
