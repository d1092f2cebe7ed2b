import hashlib
import io
import json
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kit.inference import export
from kit.inference.classifier import BATCH, Classifier, load_model
from kit.pipeline.dataset import encoded_examples
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
    found = {"sha256": hashlib.sha256((run_dir / "model.keras").read_bytes()).hexdigest()}
    (run_dir / "model.json").write_text(json.dumps(metadata(**found | changes)))
    return run_dir


def solid(colour, kind, mode="RGB"):
    buffer = io.BytesIO()
    Image.new("RGB", (50, 60), colour).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def encode(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def turned():
    """The note of a camera held upright: turn the image by 90 degrees to show it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif.tobytes()}


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), colour_model())


@pytest.fixture(scope="module")
def classifier(run_dir):
    return Classifier.from_run_dir(run_dir)


@pytest.mark.parametrize(
    "kind, mode",
    [("JPEG", "RGB"), ("PNG", "P"), ("PNG", "RGBA"), ("WEBP", "RGB"), ("WEBP", "RGBA")]
    + [("BMP", "RGB"), ("BMP", "P"), ("GIF", "P"), ("TIFF", "RGB")],
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
    photos = [images.jpeg(40 + n, 80 - n, seed=n) for n in range(BATCH + 3)]
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


def test_five_classes_are_named_where_no_number_is_given(classifier):
    photo = images.jpeg(50, 60)
    assert classifier.classify(photo) == classifier.classify(photo, top_k=5)


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
        classifier.image(data, name="cat.jpg")
    assert "\n" not in str(error.value)


def test_undecodable_one_of_many_is_named_by_its_number(classifier):
    photos = [images.jpeg(50, 60)] * (BATCH + 1) + [b"?"]
    with pytest.raises(ValueError, match=f"image {BATCH + 1} "):
        classifier.probabilities(photos)


def test_bfloat16_model_gives_float32_probabilities(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    classifier = Classifier.from_run_dir(write_run(tmp_path, colour_model()))
    shares = classifier.probabilities([solid((255, 0, 0), "PNG")])
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares[0], softmax([SHARPNESS, 0, 0]), atol=0.02)


def test_export_classifies_as_its_model_does(tmp_path):
    write_run(tmp_path, colour_model())
    export.export_all(tmp_path, ["saved_model"])
    ours, exported = (
        Classifier.from_run_dir(tmp_path),
        Classifier.from_export(tmp_path / "export" / "saved_model"),
    )
    photos = [images.jpeg(50, 60, seed=n) for n in range(5)]
    np.testing.assert_allclose(
        exported.probabilities(photos), ours.probabilities(photos), atol=1e-6
    )
    assert exported.classify(photos[0], top_k=1)[0][0] == ours.classify(photos[0], top_k=1)[0][0]


@pytest.mark.parametrize("missing", ["model.keras", "model.json"])
def test_absent_model_is_named_with_the_remedy(tmp_path, missing):
    write_run(tmp_path, colour_model())
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"{missing} is not there: train a model first"):
        load_model(tmp_path)


def test_model_of_another_class_count_is_refused(tmp_path):
    write_run(tmp_path, colour_model(), classes=metadata()["classes"][:2])
    with pytest.raises(ValueError, match="has 3 classes and model.json beside it 2"):
        load_model(tmp_path)


def test_damaged_model_is_refused_in_one_line(tmp_path):
    write_run(tmp_path, colour_model())
    whole = (tmp_path / "model.keras").read_bytes()
    half = whole[: len(whole) // 2]
    (tmp_path / "model.keras").write_bytes(half)
    found = metadata(sha256=hashlib.sha256(half).hexdigest())
    (tmp_path / "model.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="model.keras cannot be read as a model") as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"classes": [], "image_size": "32"}'])
def test_damaged_metadata_is_refused_in_one_line(tmp_path, text):
    write_run(tmp_path, colour_model())
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match="model.json .*train again") as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


def test_crop_larger_than_the_resized_photograph_is_refused(tmp_path):
    write_run(tmp_path, colour_model(), resize_side=31)
    line = "model.json has resize_side 31, under image_size 32: train again"
    with pytest.raises(ValueError, match=line):
        load_model(tmp_path)


def test_model_that_carries_a_program_is_refused(tmp_path):
    pixels = keras.Input((None, None, 3))
    program = keras.layers.Lambda(lambda x: x[:, 0, 0], output_shape=(3,))
    write_run(tmp_path, keras.Model(pixels, program(pixels)))
    with pytest.raises(ValueError, match="cannot be read as a model"):
        load_model(tmp_path)


def test_bytes_path_and_pixels_are_the_same_photograph(classifier, tmp_path):
    data = encode(images.picture(90, 70), "PNG")
    (tmp_path / "cat").write_bytes(data)
    pixels = np.asarray(images.picture(90, 70))
    square = classifier.image(data)
    for photo in (tmp_path / "cat", str(tmp_path / "cat"), pixels):
        np.testing.assert_array_equal(classifier.image(photo), square)
    grey = pixels[..., 0]
    np.testing.assert_array_equal(
        classifier.image(grey), classifier.image(np.stack([grey] * 3, axis=-1))
    )


def test_whole_photograph_comes_with_the_window_that_the_network_sees(classifier, tmp_path):
    picture = images.picture(80, 100)
    picture.save(tmp_path / "cat.jpg", quality=95)
    whole, (ymin, xmin, ymax, xmax) = classifier.whole(tmp_path / "cat.jpg")
    assert whole.shape == (80, 100, 3)
    box = [xmin * 100, ymin * 80, xmax * 100, ymax * 80]  # 32 of 40 and 32 of 50 pixels
    np.testing.assert_allclose(box, [18, 8, 82, 72])
    cut = picture.resize((32, 32), Image.BILINEAR, box=box)
    assert np.abs(classifier.image(tmp_path / "cat.jpg") - np.asarray(cut, float)).mean() < 3
    with pytest.raises(ValueError, match=r"the image \(1 bytes\) cannot be decoded"):
        classifier.whole(b"?")


@pytest.mark.parametrize(
    "photo",
    [np.zeros([9, 9, 3]), np.zeros([9, 9, 4], "uint8"), np.zeros(9, "uint8"), None, [[1, 2]]]
    + [np.zeros([0, 9, 3], "uint8")],
)
def test_what_is_no_photograph_is_refused(classifier, photo):
    with pytest.raises(ValueError, match="is no image: give uint8"):
        classifier.classify(photo, top_k=1)


def test_path_that_cannot_be_decoded_is_named(classifier, tmp_path):
    (tmp_path / "notes.jpg").write_text("none")
    with pytest.raises(
        ValueError, match=r"notes\.jpg \(4 bytes\) cannot be decoded \(not an image"
    ):
        classifier.classify(tmp_path / "notes.jpg", top_k=1)
    with pytest.raises(FileNotFoundError, match="absent.jpg"):
        classifier.classify(tmp_path / "absent.jpg", top_k=1)


def odd_photographs():
    """A photograph in each form that preparation mends or keeps, by file name."""
    picture = images.picture(120, 90)
    grey16 = Image.fromarray(np.asarray(picture.convert("L")).astype("uint16") * 256)
    return {
        "plain.jpg": encode(picture, "JPEG", quality=85),
        "grey.jpg": encode(picture.convert("L"), "JPEG"),
        "cmyk.jpg": encode(picture.convert("CMYK"), "JPEG"),
        "turned.jpg": encode(picture, "JPEG", **turned()),
        "turned.png": encode(picture, "PNG", **turned()),
        "turned.webp": encode(picture, "WEBP", lossless=True, **turned()),
        "grey16.png": encode(grey16, "PNG"),
        "alpha.png": encode(picture.convert("RGBA"), "PNG"),
        "rows.bmp": encode(picture, "BMP"),
        "small.jpg": images.jpeg(30, 50),
    }


@pytest.mark.parametrize("store_short_side", [0, 60])
@pytest.mark.parametrize("apply_orientation", [False, True])
def test_pixels_are_those_of_the_prepared_photograph_in_evaluation(
    tmp_path, store_short_side, apply_orientation
):
    photos = odd_photographs()
    for folder in ("train/a", "train/b", "validation/a", "validation/b"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        for name, data in photos.items():
            (tmp_path / "raw" / folder / name).write_bytes(data)
    raw_dir, data_dir = tmp_path / "raw", tmp_path / "shards"
    store = {"store_short_side": store_short_side, "store_quality": 80}
    store |= {"apply_orientation": apply_orientation}
    images.prepare(raw_dir, data_dir, train_shards=1, **store)
    classifier = Classifier.from_model(colour_model(), metadata(**store))
    examples = list(encoded_examples(data_dir=data_dir, split="validation"))
    assert {example["filename"].numpy().decode() for example in examples} == set(photos)
    for example in examples:
        evaluated = evaluation_image(example["encoded"], image_size=32, resize_side=40)
        found = classifier.image(photos[example["filename"].numpy().decode()])
        np.testing.assert_array_equal(found, evaluated)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_images_are_turned_where_the_models_own_were(kind):
    picture = images.picture(120, 90)
    upright = picture.transpose(Image.Transpose.ROTATE_270)
    model = Classifier.from_model(colour_model(), metadata(apply_orientation=True))
    found = model.image(encode(picture, kind, quality=95, **turned())).astype(int)
    expected = model.image(encode(upright, kind, quality=95)).astype(int)
    assert np.abs(found - expected).mean() < 2
    assert model.whole(encode(picture, kind, **turned()))[0].shape == (90, 120, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_cameras_note_to_turn_the_image_changes_nothing(classifier, kind):
    picture = images.picture(120, 90)
    plain, noted = encode(picture, kind), encode(picture, kind, **turned())
    assert plain != noted
    np.testing.assert_array_equal(classifier.image(noted), classifier.image(plain))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_truncated_photograph_is_refused_or_complete_but_never_guessed(classifier, kind):
    whole = encode(images.picture(90, 120), kind)
    square, refused = classifier.image(whole), 0
    ends = [*range(0, len(whole), len(whole) // 40), *range(len(whole) - 20, len(whole))]
    for end in ends:
        try:
            np.testing.assert_array_equal(classifier.image(whole[:end]), square)
        except ValueError as error:
            refused += 1
            assert "cannot be decoded" in str(error) and "\n" not in str(error)
    assert refused >= 39


def test_a_damaged_photograph_is_refused_without_a_line_of_libjpegs(classifier, capfd):
    with pytest.raises(ValueError, match="truncated or damaged"):
        classifier.image(images.jpeg(90, 120)[:-300])
    assert capfd.readouterr() == ("", "")


def bombs():
    """Files of a few hundred bytes whose headers claim gigabytes of pixels."""
    chunk = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", chunk), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    png = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    jpeg = images.jpeg(16, 16)
    place = jpeg.index(b"\xff\xc0") + 5
    bmp = encode(images.picture(16, 16), "BMP")
    webp = encode(images.picture(16, 16), "WEBP", lossless=True)
    (bits,) = struct.unpack_from("<I", webp, 21)  # behind RIFF, WEBP, VP8L and its signature
    sides = struct.pack("<I", bits >> 28 << 28 | 16_382 << 14 | 16_382)  # each less one
    return {
        "PNG": b"\x89PNG\r\n\x1a\n" + png,
        "JPEG": jpeg[:place] + struct.pack(">HH", 60_000, 60_000) + jpeg[place + 4 :],
        "BMP": bmp[:18] + struct.pack("<ii", 60_000, 60_000) + bmp[26:],
        "WEBP": webp[:21] + sides + webp[25:],
    }


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_decompression_bomb_is_refused_by_its_header(classifier, kind):
    with pytest.raises(ValueError, match=r"more than 89,478,485"):
        classifier.image(bombs()[kind])


@pytest.mark.parametrize("size", [(65_500, 1), (1, 65_500)])
def test_strip_that_the_resize_would_blow_up_is_refused(size):
    classifier = Classifier.from_model(colour_model(), metadata(image_size=224, resize_side=256))
    strip = encode(Image.new("RGB", size), "JPEG")
    line = f"a strip of {size[0]} x {size[1]} pixels, over 100 : 1"
    with pytest.raises(ValueError, match=line) as error:
        classifier.image(strip)
    assert "\n" not in str(error.value)


def test_file_that_model_json_does_not_tell_of_is_refused_before_it_is_loaded(tmp_path):
    write_run(tmp_path, colour_model(), sha256="0" * 64)
    (tmp_path / "model.keras").write_bytes(b"no model, but nobody looks")
    with pytest.raises(ValueError, match="is not the file that model.json .* tells of") as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


def test_model_with_the_hash_that_model_json_tells_is_loaded(tmp_path):
    write_run(tmp_path, colour_model())
    found = hashlib.sha256((tmp_path / "model.keras").read_bytes()).hexdigest()
    assert load_model(tmp_path)[1]["sha256"] == found


def test_model_json_without_a_hash_is_refused(tmp_path):
    """Beside it any network of as many classes would pass for the trained one."""
    write_run(tmp_path, colour_model())
    (tmp_path / "model.json").write_text(json.dumps(metadata()))
    with pytest.raises(ValueError, match="model.json lacks sha256: train again"):
        load_model(tmp_path)


def pillow_crop(picture, *, image_size, resize_side, antialias):
    """The short-side resize and centre crop as Pillow's users write them."""
    scale = resize_side / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    if antialias:
        picture = picture.resize((width, height), Image.BILINEAR)
    else:
        steps = (picture.width / width, 0, 0, 0, picture.height / height, 0)
        picture = picture.transform((width, height), Image.AFFINE, steps, Image.BILINEAR)
    left, top = (width - image_size) // 2, (height - image_size) // 2
    return np.asarray(picture.crop((left, top, left + image_size, top + image_size)))


def test_pixels_differ_from_pillows_only_by_antialiasing_and_the_decoder():
    """On six photographs of the demonstration, 300 to 512 pixels high, brought to 256 and cut.

    Pillow averages over what it skips, and this kit, as the 2018 recipe, does not: 0.8 to 5.4
    levels of 255 on average, most in grass. Evaluation decodes JPEGs by the accurate transform, as
    Pillow does; the fast one, TensorFlow's default and training's, differs by 0.6 to 1.0 levels.
    """
    data = pytest.importorskip("skimage.data")
    size = {"image_size": 224, "resize_side": 256}
    decoded, smoothed = [], []
    for name in ("astronaut", "chelsea", "coffee", "rocket", "brick", "grass"):
        picture = Image.fromarray(getattr(data, name)()).convert("RGB")
        jpeg = encode(picture, "JPEG", quality=90)
        fast, exact = (
            tf.io.decode_jpeg(jpeg, dct_method=way).numpy().astype(int)
            for way in ("INTEGER_FAST", "INTEGER_ACCURATE")
        )
        np.testing.assert_array_equal(exact, np.asarray(Image.open(io.BytesIO(jpeg))))
        decoded.append(np.abs(fast - exact).mean())
        ours = evaluation_image(encode(picture, "PNG"), **size).numpy().astype(int)
        assert np.abs(ours - pillow_crop(picture, **size, antialias=False)).max() <= 1
        smoothed.append(np.abs(ours - pillow_crop(picture, **size, antialias=True)).mean())
    assert 0.4 < min(decoded) < max(decoded) < 1.3
    assert 0.6 < min(smoothed) < max(smoothed) < 6.5
