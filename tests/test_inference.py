import io
import json
import time

import keras
import numpy as np
import pytest
from PIL import Image

from kit import inference
from kit.pipeline.preprocessing import evaluation_image
from tests import images

COLOURS = ("red", "green", "blue")
SHARPNESS = 8.0


def colour_model():
    """The mean of R, G and B, each in [0, SHARPNESS], as the logits of red, green and blue."""
    pixels = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(SHARPNESS / 255)(pixels)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(3, kernel_initializer="identity", name="logits")(x)
    return keras.Model(pixels, keras.layers.Activation("linear", dtype="float32")(x))


def metadata(**changes):
    classes = [{"wnid": f"n{i}", "name": name} for i, name in enumerate(COLOURS)]
    return {"classes": classes, "image_size": 32, "resize_side": 40} | changes


def write_run(run_dir, model, **changes):
    run_dir.mkdir(exist_ok=True)
    model.save(run_dir / "model.keras")
    (run_dir / "model.json").write_text(json.dumps(metadata(**changes)))
    return run_dir


def solid(colour, kind, mode="RGB"):
    buffer = io.BytesIO()
    Image.new("RGB", (50, 60), colour).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), colour_model())


@pytest.fixture(scope="module")
def classifier(run_dir):
    return inference.Classifier.from_run_dir(run_dir)


@pytest.mark.parametrize(
    "kind, mode", [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "P"), ("PNG", "RGBA")]
)
def test_photograph_is_classified_whatever_its_format(classifier, kind, mode):
    answer = classifier.classify(solid((0, 255, 128), kind, mode), top_k=3)
    assert [name for name, _ in answer] == ["green", "blue", "red"]
    by_hand = softmax(SHARPNESS * np.array([1, 128 / 255, 0]))
    np.testing.assert_allclose([share for _, share in answer], by_hand, atol=0.01)


def test_cmyk_photograph_is_classified(classifier):
    assert classifier.classify(solid((255, 0, 0), "JPEG", "CMYK"), top_k=1)[0][0] == "red"


def test_grey_photograph_is_equally_every_colour(classifier):
    shares = classifier.probabilities([images.jpeg(50, 60, mode="L")])
    np.testing.assert_allclose(shares, [[1 / 3] * 3], atol=1e-6)


def test_probabilities_of_many_photographs_keep_their_order(classifier):
    photos = [images.jpeg(40 + n, 80 - n, seed=n) for n in range(inference.BATCH + 3)]
    squares = [evaluation_image(photo, image_size=32, resize_side=40) for photo in photos]
    logits = np.stack(squares).astype("float64").mean(axis=(1, 2)) * SHARPNESS / 255
    found = classifier.probabilities(photos)
    np.testing.assert_allclose(found, softmax(logits), atol=1e-5)
    assert found.dtype == np.float32


def test_no_photograph_has_no_probabilities(classifier):
    assert classifier.probabilities([]).shape == (0, 3)


def test_image_is_what_the_network_sees(classifier):
    image = classifier.image(images.jpeg(50, 90))
    assert image.shape == (32, 32, 3)
    assert image.dtype == "uint8"


def test_top_k_over_the_classes_gives_all_of_them(classifier):
    assert len(classifier.classify(images.jpeg(50, 60), top_k=5)) == 3
    assert len(classifier.classify(images.jpeg(50, 60), top_k=2)) == 2


def test_top_k_under_one_is_refused(classifier):
    with pytest.raises(ValueError, match="top_k: 0"):
        classifier.classify(images.jpeg(50, 60), top_k=0)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty file"),
        (b"a text that is called cat.jpg", "not an image"),
        (images.jpeg(90, 90)[:-300], "truncated or damaged"),
        (images.png(90, 90)[:-300], "PNG that cannot be decoded"),
    ],
)
def test_bytes_that_cannot_be_decoded_are_named_in_one_line(classifier, data, reason):
    start = rf"cat\.jpg \({len(data):,} bytes\) cannot be decoded \({reason}"
    with pytest.raises(ValueError, match=start) as error:
        classifier.classify(data, top_k=1, name="cat.jpg")
    assert "\n" not in str(error.value)


def test_undecodable_one_of_many_is_named_by_its_number(classifier):
    photos = [images.jpeg(50, 60)] * (inference.BATCH + 1) + [b"?"]
    with pytest.raises(ValueError, match=f"image {inference.BATCH + 1} "):
        classifier.probabilities(photos)


def test_bfloat16_model_gives_float32_probabilities(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    classifier = inference.Classifier.from_run_dir(write_run(tmp_path, colour_model()))
    shares = classifier.probabilities([solid((255, 0, 0), "PNG")])
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares[0], softmax([SHARPNESS, 0, 0]), atol=0.02)
    assert (
        classifier.latency([images.jpeg(50, 60)], latency_runs=1)["precision"] == "mixed_bfloat16"
    )


class Slow(inference.Classifier):
    """30 ms more to decode, half a second the first time, and 60 ms more to classify."""

    def __init__(self, model, metadata):
        super().__init__(model, metadata)
        self.seen = []
        fast = self._forward
        self._forward = lambda pixels: time.sleep(0.06) or fast(pixels)

    def image(self, encoded, **names):
        time.sleep(0.03 if self.seen else 0.5)
        self.seen.append(encoded)
        return super().image(encoded, **names)


def test_latency_gives_each_stage_its_own_time(run_dir):
    classifier = Slow.from_run_dir(run_dir)
    photos = [images.jpeg(50, 60, seed=n) for n in range(3)]
    measured = classifier.latency(photos, latency_runs=10)
    assert measured["runs"] == 10
    assert measured["precision"] == "float32"
    assert measured["device"]
    runs = inference.WARM_UP + 10
    assert classifier.seen == (photos * runs)[:runs]  # in turn and again
    assert 30 <= measured["decode_resize"]["p50"] < 60 <= measured["forward"]["p50"]
    assert measured["decode_resize"]["p99"] < 450  # the first runs do not count
    assert measured["transfer"]["p50"] < 30
    assert measured["total"]["p50"] >= 90
    for stage in inference.STAGES:
        assert 0 < measured[stage]["p50"] <= measured[stage]["p90"] <= measured[stage]["p99"]


def test_latency_of_nothing_is_refused(classifier):
    with pytest.raises(ValueError, match="latency_runs: 0"):
        classifier.latency([images.jpeg(50, 60)], latency_runs=0)
    with pytest.raises(ValueError, match="no photograph"):
        classifier.latency([], latency_runs=1)


def test_latency_file_holds_the_measurement(classifier, tmp_path):
    measured = classifier.latency([images.jpeg(50, 60)], latency_runs=2)
    path = inference.write_latency(tmp_path, measured)
    assert json.loads(path.read_text()) == measured
    assert list(tmp_path.iterdir()) == [tmp_path / "latency.json"]


@pytest.mark.parametrize("missing", ["model.keras", "model.json"])
def test_absent_model_is_named_with_the_remedy(tmp_path, missing):
    write_run(tmp_path, colour_model())
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"{missing} is not there: train a model first"):
        inference.load_model(tmp_path)


def test_model_of_another_class_count_is_refused(tmp_path):
    write_run(tmp_path, colour_model(), classes=metadata()["classes"][:2])
    with pytest.raises(ValueError, match="has 3 classes and model.json beside it 2"):
        inference.load_model(tmp_path)


def test_damaged_model_is_refused_in_one_line(tmp_path):
    write_run(tmp_path, colour_model())
    whole = (tmp_path / "model.keras").read_bytes()
    (tmp_path / "model.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="model.keras cannot be read as a model") as error:
        inference.load_model(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"classes": [], "image_size": "32"}'])
def test_damaged_metadata_is_refused_in_one_line(tmp_path, text):
    write_run(tmp_path, colour_model())
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match="model.json .*train again") as error:
        inference.load_model(tmp_path)
    assert "\n" not in str(error.value)


def test_model_that_carries_a_program_is_refused(tmp_path):
    pixels = keras.Input((None, None, 3))
    program = keras.layers.Lambda(lambda x: x[:, 0, 0], output_shape=(3,))
    write_run(tmp_path, keras.Model(pixels, program(pixels)))
    with pytest.raises(ValueError, match="cannot be read as a model"):
        inference.load_model(tmp_path)


def test_photos_of_a_folder_come_sorted_without_other_files(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "folder.jpg").mkdir()
    assert inference.read_photos(tmp_path) == [("a.png", b"a.png"), ("b.JPG", b"b.JPG")]
    assert inference.read_photos(str(tmp_path / "b.JPG")) == [("b.JPG", b"b.JPG")]


@pytest.mark.parametrize("photos", ["", "no/such/photo.jpg"])
def test_absent_photos_are_named(photos):
    with pytest.raises(FileNotFoundError, match=f'photos: "{photos}" is not there'):
        inference.read_photos(photos)


def test_folder_without_an_image_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(ValueError, match="no image directly in"):
        inference.read_photos(tmp_path)
