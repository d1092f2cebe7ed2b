import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kit.evaluation import test_time_augmentation
from kit.evaluation.sections import VIEWS
from kit.pipeline.dataset import encoded_examples, evaluation_dataset
from tests.images import make_shards, png

SIZE = {"image_size": 32, "resize_side": 40}


def seen(view, encoded, **changes):
    examples = tf.data.Dataset.from_tensors({"encoded": encoded, "label": tf.constant(3, tf.int64)})
    (pixels, labels), *others = test_time_augmentation.batches(
        examples, view, batch_size=20, **SIZE | changes
    )
    assert labels.numpy().tolist() == [3] and not others
    return pixels[0].numpy()


def ramp(path, height=40, width=60):
    """An image whose short side is right already: its pixels tell their place."""
    rows, columns = np.indices([height, width])
    pixels = np.stack([rows, columns, 0 * rows], axis=-1).astype("uint8")
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("smooth", [False, True])
def test_the_centre_is_that_of_the_evaluation(smooth, tmp_path):
    data_dir = make_shards(tmp_path, classes=2, images=9)
    where = {"data_dir": data_dir, "split": "validation"}
    how = SIZE | {"antialias": smooth, "batch_size": 4}
    ours = test_time_augmentation.batches(encoded_examples(**where), "centre", **how)
    theirs = evaluation_dataset(**where, **how)
    for mine, other in zip(ours, theirs, strict=True):
        for one, same in zip(mine, other, strict=True):
            np.testing.assert_array_equal(one, same)


def test_flip_gives_the_centre_and_its_mirror_image():
    encoded = png(40, 60)
    first, second = seen("flip", encoded)
    np.testing.assert_array_equal(first, seen("centre", encoded))
    np.testing.assert_array_equal(second, first[:, ::-1])


def test_ten_crop_gives_corners_and_centre_and_their_mirror_images(tmp_path):
    crops = seen("ten_crop", ramp(tmp_path / "ramp.png"))
    assert crops.shape == (10, 32, 32, 3)
    corners = [crop[0, 0, :2].tolist() for crop in crops[:5]]  # row, column of the first pixel
    assert sorted(corners) == [[0, 0], [0, 28], [4, 14], [8, 0], [8, 28]]
    np.testing.assert_array_equal(crops[5:], crops[:5, :, ::-1])


def test_a_batch_counts_views():
    data = {"encoded": [png(40, 60)] * 7, "label": np.zeros(7, "int64")}
    examples = tf.data.Dataset.from_tensor_slices(data)
    sizes = [
        len(labels)
        for _, labels in test_time_augmentation.batches(examples, "flip", batch_size=6, **SIZE)
    ]
    assert sizes == [3, 3, 1]
    sizes = [
        len(labels)
        for _, labels in test_time_augmentation.batches(examples, "ten_crop", batch_size=6, **SIZE)
    ]
    assert sizes == [1] * 7


@pytest.mark.parametrize("size, side", [(224, 256), (288, 329), (32, 37)])
def test_the_short_side_keeps_its_proportion_to_the_crop(size, side):
    assert test_time_augmentation.side_for(size, image_size=224, resize_side=256) == side


def test_the_views_that_a_parameter_may_name_are_there():
    assert set(VIEWS) | {"centre"} == set(test_time_augmentation.VIEWS)
