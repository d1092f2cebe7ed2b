import base64
import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kit import params
from kit.data.manifest import read_manifest
from kit.inference import export, formats
from kit.inference.classifier import Classifier, load_model
from kit.model.folding import in_float32
from kit.pipeline.dataset import evaluation_dataset
from kit.pipeline.preprocessing import evaluation_image
from kit.training import trainer
from tests import images
from tests.exported import NAMES, SIZE, log_probabilities, pixels, write_run
from tests.images import MANIFEST
from tests.small_training import compiled

EXTRA = ("onnxruntime", "tf2onnx", "openvino", "ai_edge_litert")
FLOAT = {  # form -> runtimes that must agree with Keras
    "saved_model": ["tensorflow"],
    "onnx": ["onnxruntime", "openvino"],
    "litert": ["litert"],
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = write_run(tmp_path_factory.mktemp("run"))
    export.export_all(run_dir, ["saved_model"])
    return run_dir


@pytest.fixture(
    scope="module",
    params=[("float32", "1.5"), ("mixed_bfloat16", "1.5"), ("float32", "1"), ("float32", "2")],
)
def every_form(request, tmp_path_factory):
    for module in EXTRA:
        pytest.importorskip(module)
    precision, version = request.param
    run_dir = write_run(tmp_path_factory.mktemp("run"), precision, version=version)
    records = export.export_all(run_dir, list(formats.FORMATS), calibration=pixels(40, 1))
    return run_dir, records


def served(run_dir, signature):
    return tf.saved_model.load(run_dir / "export" / "saved_model").signatures[signature]


def as_rest_sends(photos):
    """Give the tensor that TensorFlow Serving makes of a request in its row format.

    Its REST interface takes binary values as {"b64": text}:
    tensorflow.org/tfx/serving/api_rest, Encoding binary values.
    """
    rows = [{"image_bytes": {"b64": base64.b64encode(photo).decode()}} for photo in photos]
    request = json.loads(json.dumps({"instances": rows}))
    decoded = [base64.b64decode(row["image_bytes"]["b64"]) for row in request["instances"]]
    return tf.constant(decoded)


def test_served_photographs_get_what_the_classifier_says(run_dir):
    photos = [images.jpeg(50, 60), images.jpeg(90, 41, mode="L"), images.jpeg(20, 30)]
    found = served(run_dir, "serving_default")(image_bytes=as_rest_sends(photos))
    expected = Classifier.from_run_dir(run_dir).probabilities(photos)
    assert list(found) == ["probabilities"]
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-6)


def test_served_pixels_are_those_of_evaluation(run_dir):
    classifier = Classifier.from_run_dir(run_dir)
    photo = images.jpeg(70, 53)
    of_bytes = served(run_dir, "serving_default")(image_bytes=tf.constant([photo]))
    of_pixels = served(run_dir, "pixels")(images=tf.constant(classifier.image(photo)[np.newaxis]))
    np.testing.assert_array_equal(of_bytes["probabilities"], of_pixels["probabilities"])


def test_a_model_of_antialiased_images_is_served_them(tmp_path):
    run_dir = write_run(tmp_path, antialias=True)
    export.export_all(run_dir, ["saved_model"])
    noise = np.random.default_rng(0).integers(0, 256, (170, 130, 3)).astype("uint8")
    photo = tf.io.encode_jpeg(noise).numpy()
    square = Classifier.from_run_dir(run_dir).image(photo)
    exported = Classifier.from_export(run_dir / "export" / "saved_model")
    np.testing.assert_array_equal(exported.image(photo), square)
    size = {"image_size": SIZE, "resize_side": 40}
    np.testing.assert_array_equal(square, evaluation_image(photo, **size, antialias=True))
    assert (square != evaluation_image(photo, **size).numpy()).any()
    of_bytes = served(run_dir, "serving_default")(image_bytes=tf.constant([photo]))
    of_pixels = served(run_dir, "pixels")(images=tf.constant(square[np.newaxis]))
    np.testing.assert_array_equal(of_bytes["probabilities"], of_pixels["probabilities"])


def test_served_strips_are_refused_as_the_classifier_refuses_them(run_dir):
    strip = images.jpeg(1, 1500)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a strip of"):
        served(run_dir, "serving_default")(image_bytes=as_rest_sends([strip]))
    with pytest.raises(ValueError, match="a strip of 1500 x 1 pixels"):
        Classifier.from_run_dir(run_dir).image(strip)


@pytest.mark.parametrize(
    "kind, mode", [("JPEG", "CMYK"), ("PNG", "RGB"), ("WEBP", "RGB"), ("BMP", "RGB")]
)
def test_served_photographs_of_other_formats_get_nearly_what_the_classifier_says(
    run_dir, kind, mode
):
    buffer = io.BytesIO()
    images.picture(50, 60).convert(mode).save(buffer, kind)
    found = served(run_dir, "serving_default")(image_bytes=as_rest_sends([buffer.getvalue()]))
    expected = Classifier.from_run_dir(run_dir).probabilities([buffer.getvalue()])
    np.testing.assert_allclose(found["probabilities"], expected, atol=0.02)


@pytest.mark.slow
def test_command_line_shows_the_signature_and_runs_it(run_dir, tmp_path):
    folder = str(run_dir / "export" / "saved_model")
    which = ["--dir", folder, "--tag_set", "serve", "--signature_def", "serving_default"]
    photo = images.jpeg(50, 60)
    np.save(tmp_path / "photo.npy", np.array([photo]))
    sent = ["--inputs", f"image_bytes={tmp_path / 'photo.npy'}", "--outdir", str(tmp_path)]
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    for words in (["show", *which], ["run", *which, *sent]):
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        if words[0] == "show":
            shown = [line.strip() for line in done.stdout.splitlines()]
            place = shown.index("inputs['image_bytes'] tensor_info:")
            assert shown[place + 1 : place + 3] == ["dtype: DT_STRING", "shape: (-1)"]
    found = np.load(tmp_path / "probabilities.npy")
    expected = Classifier.from_run_dir(run_dir).probabilities([photo])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_saved_model_holds_each_weight_once(run_dir):
    variables = run_dir / "export" / "saved_model" / "variables"
    weights = load_model(run_dir)[0].count_params() * 4
    data = sum(file.stat().st_size for file in variables.glob("*.data*"))
    assert data < 1.2 * weights + 20_000  # the rest tells of the objects


def test_metadata_is_the_models_with_hashes_and_checks(run_dir):
    path = run_dir / "export" / "saved_model"
    metadata = json.loads((run_dir / "export" / "saved_model.json").read_text())
    assert metadata["form"] == "saved_model"
    assert [row["name"] for row in metadata["classes"]] == list(NAMES)
    assert metadata["files"] == formats.hashes(path)
    assert metadata["sha256"] == load_model(run_dir)[1]["sha256"]
    assert metadata["checks"]["max_difference"] <= 1e-4
    assert metadata["checks"]["agreement"] == 1


def test_record_tells_form_size_and_difference(tmp_path):
    run_dir = write_run(tmp_path)
    [record] = export.export_all(run_dir, ["saved_model"], calibration=pixels(3))
    files = [file for file in (tmp_path / "export" / "saved_model").rglob("*") if file.is_file()]
    assert record["bytes"] == sum(file.stat().st_size for file in files)
    assert record["path"] == str(tmp_path / "export" / "saved_model")
    assert 0 <= record["max_difference"] < 1e-4


def test_export_replaces_the_one_before(tmp_path):
    run_dir = write_run(tmp_path)
    (tmp_path / "export" / "saved_model").mkdir(parents=True)
    (tmp_path / "export" / "saved_model" / "stray").write_text("of another version")
    export.export_all(run_dir, ["saved_model"])
    formats.load(tmp_path / "export" / "saved_model")
    assert not (tmp_path / "export" / "saved_model" / "stray").exists()


@pytest.mark.parametrize("factor, refused", [(1 + 5e-5, False), (1 + 3e-4, True)])
def test_export_that_differs_from_keras_by_over_1e_4_is_removed(
    tmp_path, monkeypatch, factor, refused
):
    """A runtime whose probabilities are so much too large moves their logarithms by as much."""
    run_dir, load = write_run(tmp_path), formats.open_export
    monkeypatch.setattr(
        export.formats, "open_export", lambda *how: lambda pixels: factor * load(*how)(pixels)
    )
    if not refused:
        export.export_all(run_dir, ["saved_model"])
        assert (tmp_path / "export" / "saved_model").exists()
        return
    with pytest.raises(ValueError, match="saved_model: its log-probabilities differ from Keras'"):
        export.export_all(run_dir, ["saved_model"])
    assert list((tmp_path / "export").iterdir()) == []


@pytest.mark.parametrize(
    "exports, message",
    [
        (["coreml"], 'exports: "coreml" is not one of saved_model, onnx'),
        (["onnx"], r"exports: onnx needs tf2onnx, which is not installed: pip install -e '\.\["),
    ],
)
def test_export_that_cannot_be_is_refused_before_any_is_written(
    tmp_path, monkeypatch, exports, message
):
    for module in ("onnx", "onnxruntime"):  # as if these were installed, and tf2onnx not
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(__spec__=object()))
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ValueError, match=message):
        export.export_all(write_run(tmp_path), ["saved_model", *exports])
    assert not (tmp_path / "export").exists()


def test_int8_without_training_images_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", SimpleNamespace(__spec__=object()))
    with pytest.raises(ValueError, match="calibration_images: 0 show litert_int8 no ranges"):
        export.export_all(write_run(tmp_path), ["litert_int8"])
    assert not (tmp_path / "export").exists()


def test_int8_takes_its_images_from_the_shards_of_the_models_own_classes(tmp_path):
    data_dir = images.make_shards(tmp_path)
    manifest = read_manifest(data_dir)
    size = {"image_size": SIZE, "resize_side": 40}
    metadata = size | {"label_offset": 1, "store_short_side": 0, "classes": manifest["classes"]}
    calibration, validation = export.int8_images(data_dir, metadata, calibration_images=5)
    training = evaluation_dataset(data_dir=data_dir, split="train", batch_size=5, **size)
    np.testing.assert_array_equal(calibration, next(iter(training))[0])
    found = np.concatenate([labels for _, labels in validation])
    assert len(found) == manifest["splits"]["validation"]["images"]
    with pytest.raises(ValueError, match="the model has 2 classes and the data 3"):
        other = metadata | {"classes": manifest["classes"][:2]}
        export.int8_images(data_dir, other, calibration_images=5)


def test_cost_compares_the_answers_to_every_image():
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    rows = {"ours": [0, 1, 2, 0, 0, 0, 1], "theirs": [0, 1, 2, 1, 1, 0, 2]}
    shown = np.arange(7)
    dataset = tf.data.Dataset.from_tensor_slices((shown, labels)).batch(3)
    ours, theirs = (lambda n, row=row: np.eye(3)[np.array(row)[n]] for row in rows.values())
    found = export.cost(ours, theirs, dataset)
    assert found["images"] == 7
    assert found["agreement"] == pytest.approx(4 / 7)
    assert (found["top1"], found["original_top1"]) == pytest.approx((4 / 7, 4 / 7))
    assert (found["only_ours"], found["only_theirs"], found["difference"]) == (1, 1, 0)
    assert found["low"] < 0 < found["high"]


def test_trained_average_is_what_is_exported(tmp_path):
    """Of a training with all that only training needs, in the average of its weights."""
    training = {"ema_decay": 0.5, "drop_path": 0.3, "blur_pool": True, "batch_norm_momentum": 0.5}
    model = compiled(**training, stage_sizes=(1, 2))
    labels = np.arange(8) % 3
    model.fit(pixels(8).astype("float32"), labels, batch_size=4, epochs=5, verbose=0)
    parameters = params.load(overrides={"image_size": SIZE, "resize_side": 40}).values
    manifest = MANIFEST | {"classes": MANIFEST["classes"][:3]}
    trainer.save_model(model, run_dir=tmp_path, manifest=manifest, parameters=parameters)
    export.export_all(tmp_path, ["saved_model"])
    found = np.log(formats.load(tmp_path / "export" / "saved_model")(pixels(4, seed=1)))
    assert np.abs(found - log_probabilities(model, pixels(4, seed=1))).max() > 1e-3
    with model.holding(average=True):
        expected = log_probabilities(model, pixels(4, seed=1))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["saved_model", *(pytest.param(x, marks=pytest.mark.slow) for x in ("onnx", "litert"))]
)
def test_a_full_disk_names_the_file_and_leaves_no_half_export(small_disk, name):
    run_dir = write_run(small_disk / "run")
    room = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "filler").write_bytes(bytes(room - 20_000))
    line = rf"{formats.FORMATS[name].file} cannot be written \(No space left on device\): make room"
    with pytest.raises(OSError, match=line) as error:
        export.export_all(run_dir, [name])
    assert "\n" not in str(error.value)
    assert not list((run_dir / "export").iterdir())


WITHOUT_KIT = """
import sys
sys.modules["kit"] = None  # to import it is an error
import keras
import numpy as np
folder = sys.argv[1]
model = keras.saving.load_model(f"{folder}/model.keras")
np.save(f"{folder}/found.npy", model.predict(np.load(f"{folder}/pixels.npy"), verbose=0))
"""


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_model_keras_needs_no_kit_and_takes_pixels_and_gives_logits(tmp_path, precision):
    """As kit/README.md says; of a training with layers that only the kit's training has."""
    training = {"drop_path": 0.3, "blur_pool": True, "precision": precision}
    model = compiled(**training, stage_sizes=(1, 2))
    parameters = params.load(overrides={"image_size": SIZE, "precision": precision}).values
    manifest = MANIFEST | {"classes": MANIFEST["classes"][:3]}
    trainer.save_model(model, run_dir=tmp_path, manifest=manifest, parameters=parameters)
    keras.config.set_dtype_policy("float32")
    np.save(tmp_path / "pixels.npy", pixels(4))
    command = [sys.executable, "-c", WITHOUT_KIT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npy")
    expected = model(pixels(4).astype("float32"), training=False)
    np.testing.assert_allclose(found, expected, atol=1e-4 if precision == "float32" else 0.05)
    assert not np.allclose(found.sum(axis=1), 1)  # logits, not probabilities


@pytest.mark.slow
def test_int8_states_its_cost_on_the_validation_images(tmp_path):
    pytest.importorskip("ai_edge_litert")
    write_run(tmp_path)
    labels = np.arange(40) % len(NAMES)
    validation = tf.data.Dataset.from_tensor_slices((pixels(40, 5), labels)).batch(16)
    forms = ["litert", "litert_int8"]
    records = export.export_all(tmp_path, forms, calibration=pixels(40, 1), validation=validation)
    assert "cost" not in records[0]
    network = formats.load(tmp_path / "export" / "model_int8.tflite")
    found = network(pixels(40, 5)).argmax(axis=1)
    expected = log_probabilities(load_model(tmp_path)[0], pixels(40, 5)).argmax(axis=1)
    cost = records[1]["cost"]
    assert network.metadata["checks"]["cost"] == cost
    assert cost["agreement"] == pytest.approx((found == expected).mean())
    assert cost["top1"] == pytest.approx((found == labels).mean())
    assert cost["original_top1"] == pytest.approx((expected == labels).mean())
    assert cost["low"] <= cost["difference"] <= cost["high"]


@pytest.mark.slow
def test_every_form_gives_what_keras_gives_in_every_runtime(every_form):
    run_dir, _ = every_form
    shown = pixels(9, seed=3)
    model = keras.saving.load_model(run_dir / "model.keras", compile=False)
    expected = log_probabilities(in_float32(model), shown)
    for form, names in FLOAT.items():
        for runtime in names:
            network = formats.load(run_dir / "export" / formats.FORMATS[form].file, runtime=runtime)
            for batch in (9, 1, 4):  # any number of images, in any order of numbers
                found = np.log(network(shown[:batch]))
                np.testing.assert_allclose(found, expected[:batch], atol=1e-4, err_msg=runtime)


@pytest.mark.slow
def test_smaller_numbers_give_nearly_what_keras_gives(every_form):
    run_dir, records = every_form
    shown = pixels(64, seed=3)
    expected = np.exp(log_probabilities(in_float32(load_model(run_dir)[0]), shown))
    for file, runtime in {"model_int8.tflite": "litert", "model.onnx": "openvino_bf16"}.items():
        try:
            network = formats.load(run_dir / "export" / file, runtime=runtime)
        except ValueError as error:  # not every CPU has bfloat16
            assert "this CPU" in str(error)
            continue
        found = network(shown)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
        assert np.abs(found - expected).mean() < 0.02
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.9


@pytest.mark.slow
def test_onnx_and_litert_name_their_tensors(every_form):
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    folder = every_form[0] / "export"
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert [tensor.name for tensor in session.get_inputs()] == ["images"]
    assert [tensor.name for tensor in session.get_outputs()] == ["probabilities"]
    for file in ("model.tflite", "model_int8.tflite"):
        [signature] = Interpreter(str(folder / file)).get_signature_list().values()
        assert signature == {"inputs": ["images"], "outputs": ["probabilities"]}
