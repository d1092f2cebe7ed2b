"""An image that cannot be decoded is named, with shard and record, in training and evaluation."""

import pytest
import tensorflow as tf

from kit.data.images import read_header
from kit.evaluation import predictions
from kit.pipeline.dataset import evaluation_dataset
from kit.pipeline.undecodable import naming_undecodable
from tests import jpegs, small_training
from tests.images import class_folders, prepare


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Shards of `check: header` with an image in each split that has a sound header alone."""
    root = tmp_path_factory.mktemp("odd")
    raw_dir = class_folders(root / "raw", classes=2, images=12)
    odd = jpegs.grey_blocks(48, 64, ((3, 1), (2, 1), (2, 1)))
    read_header(odd)
    for split, name in (("train", "odd_train"), ("validation", "odd_validation")):
        for label in range(2):
            folder = root / "split" / split / f"class{label}"
            folder.mkdir(parents=True)
            for path in sorted((raw_dir / f"class{label}").iterdir()):
                (folder / path.name).write_bytes(path.read_bytes())
        (root / "split" / split / "class1" / f"{name}.jpg").write_bytes(odd)
    prepare(root / "split", root / "shards", check="header")
    return root / "shards"


def test_evaluation_names_shard_record_and_file(data_dir):
    size = {"image_size": 32, "resize_side": 40, "batch_size": 4}
    batches = evaluation_dataset(data_dir=data_dir, split="validation", **size)
    options = {"images": 25, "data_dir": data_dir}
    said = r"2 images .*shard validation-.*, record \d+ \(odd_validation\.jpg\): truncated or"
    with pytest.raises(ValueError, match=said) as error:
        predictions.predict(lambda pixels, training: pixels[:, 0, 0, :2], batches, **options)
    assert "\n" not in str(error.value)


def test_training_names_shard_record_and_file(data_dir, tmp_path):
    with (
        pytest.raises(
            ValueError, match=r"shard train-.*, record \d+ \(odd_train\.jpg\): truncated"
        ),
        naming_undecodable(data_dir),
    ):
        for step, _ in enumerate(small_training.training_data(data_dir).batches()):
            assert step < 100


def test_other_errors_stay(data_dir):
    with pytest.raises(tf.errors.InvalidArgumentError, match="other"), naming_undecodable(data_dir):
        raise tf.errors.InvalidArgumentError(None, None, "other")
    error = tf.errors.InvalidArgumentError(None, None, "jpeg")
    with pytest.raises(tf.errors.InvalidArgumentError), naming_undecodable(""):
        raise error
