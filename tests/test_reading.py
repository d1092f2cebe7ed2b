import numpy as np
import pytest
import tensorflow as tf

from kit.prep import reading
from kit.prep.sources import Image
from tests.images import class_folders, index_of, jpeg, png


def image_of(folder, data: bytes) -> Image:
    (folder / "odd.jpg").write_bytes(data)
    return Image("train", 0, str(folder), "odd.jpg", len(data))


def test_a_preview_of_a_truncated_jpeg_is_as_much_as_there_is(tmp_path):
    whole = jpeg(200, 160)
    seen = reading.preview(image_of(tmp_path, whole[: len(whole) // 2]))
    expected = tf.io.decode_jpeg(whole).numpy()
    assert seen.shape == expected.shape
    np.testing.assert_array_equal(seen[:32], expected[:32])
    assert np.any(seen[-32:] != expected[-32:])


def test_a_preview_of_a_png_named_jpg_is_its_picture(tmp_path):
    data = png(40, 60)
    expected = tf.io.decode_png(data, channels=3).numpy().astype(int)
    seen = reading.preview(image_of(tmp_path, data)).astype(int)
    assert np.abs(seen - expected).mean() < 2  # it becomes a JPEG of quality 100 on the way


@pytest.mark.parametrize("data", [b"", b"no image at all", b"\xff\xd8\xff"])
def test_a_preview_of_what_is_no_image_is_grey(tmp_path, data):
    seen = reading.preview(image_of(tmp_path, data))
    assert set(seen.ravel()) == {128}


def test_images_are_found_by_the_names_in_a_manifest(tmp_path):
    class_folders(tmp_path, classes=2, images=4)
    index = index_of(tmp_path)
    changes = [{"file": "class1/1_3.jpg", "reason": "PNG"}]
    (found,) = reading.find_images(index, changes, tmp_path)
    assert (found.label, found.name) == (1, "1_3.jpg")
