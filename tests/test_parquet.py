"""Hugging Face's parquet: files found, labels and names, and what is no such file."""

import hashlib

import layouts
import pytest
from images import index_of, jpeg
from layouts import write_parquet

from kit.prep import parquet, reading

pytestmark = pytest.mark.slow  # needs pyarrow

CATS = [(number % 2, f"{number}.jpg", jpeg(8, 8, seed=number)) for number in range(10)]


def read(root, fraction=0.2):
    return index_of(root, validation_fraction=fraction)


@pytest.fixture(autouse=True)
def opened_anew():
    parquet._open.cache_clear()
    parquet._read_group.cache_clear()


def test_set_of_other_things_keeps_its_labels_and_names(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00001.parquet", CATS, ["cat", "ant"])
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", CATS[:4], [])
    index = read(tmp_path)
    assert index.layout == "parquet"
    assert index.classes == [("cat", "cat"), ("ant", "ant")]
    assert len(index.images) == 14
    for image in index.images:
        assert (image.label, image.name, reading.read_image(image)) in CATS


@pytest.mark.parametrize("labelled", [True, False])
def test_test_images_count_if_they_have_labels(tmp_path, labelled):
    rows = [(label if labelled else -1, f"t{name}", data) for label, name, data in CATS[:4]]
    write_parquet(tmp_path / "train-00000-of-00001.parquet", CATS, ["cat", "ant"])
    write_parquet(tmp_path / "test-00000-of-00001.parquet", rows, ["cat", "ant"])
    index = read(tmp_path)
    tested = [(i.label, i.name) for i in index.images if i.split == "test"]
    assert sorted(tested) == sorted(row[:2] for row in rows) * labelled
    assert [i.split for i in index.images[:10]] == ["train"] * 8 + ["validation"] * 2
    path = f"{tmp_path}/test-00000-of-00001.parquet"
    assert index.skipped == [(path, "test images without labels")] * (not labelled)


def test_share_of_each_class_is_held_out_where_there_is_only_a_training_split(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00001.parquet", CATS, ["cat", "ant"])
    held_out = [i for i in read(tmp_path).images if i.split == "validation"]
    assert sorted(image.label for image in held_out) == [0, 1]


def test_labels_without_names_are_called_by_their_numbers(tmp_path):
    write_parquet(tmp_path / "train.parquet", [(at + 1, None, data) for at, _, data in CATS], [])
    index = read(tmp_path)
    assert index.classes == [("0", "0"), ("1", "1"), ("2", "2")]
    assert {i.name for i in index.images} == {f"train-{n}" for n in range(10)}


@pytest.mark.parametrize("label", [-1, None, 2**40])
def test_label_that_is_none_is_named(tmp_path, label):
    write_parquet(tmp_path / "train.parquet", [*CATS, (label, "x.jpg", b"")], [])
    with pytest.raises(ValueError, match=f"row 10 has the label {label}"):
        read(tmp_path)


def test_image_without_bytes_is_empty(tmp_path):
    write_parquet(tmp_path / "train.parquet", [*CATS, (0, "x.jpg", None)], [])
    (image,) = [image for image in read(tmp_path).images if image.name == "x.jpg"]
    assert reading.read_image(image) == b""


def test_other_columns_are_named(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"img": [b"x"], "label": [0]})
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"train\.parquet cannot be read: .*image") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"<html>" * 10])
def test_file_that_is_no_parquet_is_named(tmp_path, data):
    (tmp_path / "train.parquet").write_bytes(data)
    with pytest.raises(ValueError, match=r"train\.parquet cannot be read"):
        read(tmp_path)


def test_training_split_that_is_missing_is_named(tmp_path):
    write_parquet(tmp_path / "validation.parquet", CATS, [])
    with pytest.raises(FileNotFoundError, match=r"holds validation\.parquet but no train-"):
        read(tmp_path)


def test_file_shortened_since_stops_the_reader(tmp_path):
    write_parquet(tmp_path / "train.parquet", CATS, [])
    image = max(read(tmp_path).images, key=lambda image: image.position)
    write_parquet(tmp_path / "train.parquet", CATS[:5], [])
    parquet._open.cache_clear()
    with pytest.raises(OSError, match=r"train\.parquet/9\.jpg cannot be read \(it has fewer rows"):
        reading.read_image(image)


def test_file_with_a_damaged_page_stops_the_reader(tmp_path):
    layouts.parquet(tmp_path)
    index = index_of(tmp_path, validation_fraction=0.2, subset=True)
    path = tmp_path / "data/train-00000-of-00002.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    parquet._open.cache_clear()
    damaged = [image for image in index.images if image.container == str(path)]
    with pytest.raises(OSError, match=r"train-00000-of-00002\.parquet/.* cannot be read"):
        for image in damaged:
            hashlib.sha256(reading.read_image(image))
