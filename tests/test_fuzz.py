"""Damaged images, boxes, shards and manifests: a right answer or one clear line, nothing else.

test_source_fuzz.py does the same for archives and the devkit.
"""

import json
import shutil

import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images import jpeg, make_shards, png
from jpegs import grey_blocks, many_scans

from kit.data import images, manifest, storage
from kit.prep import boxes, imagenet, verify

FEW, MANY = 40, 420  # cases of each kind: 2,520 in make test-all
NAME = "train-00000-of-00001"
WNID = "n02092002"
XML = (
    f"<annotation><size><width>200</width><height>100</height></size><object><name>{WNID}</name>"
    "<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>100</xmax><ymax>90</ymax></bndbox></object>"
    "</annotation>"
).encode()
CSV = f"ImageId,PredictionString\n{WNID}_7,{WNID} 2 3 20 30 {WNID} 1 1 9 9\n".encode()
WORDS = (
    b"",
    b"\xff",
    b"\xff\xc0",
    b"\xff\xd8",
    b"\x00" * 8,
    b"-1",
    b"1e999",
    b"nan",
    b"\n",
    b"../",
)


@st.composite
def damaged(draw, originals):
    """Draw one of the originals with up to five changes: overwritten, inserted, removed, cut."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(data)))
        piece = draw(st.sampled_from(WORDS) | st.binary(max_size=8))
        removed = draw(st.sampled_from((0, 1, len(piece), len(piece), 40, len(data))))
        data[start : start + removed] = piece
    return bytes(data)


def check_header(data, folder):
    header = images.read_header(data)
    assert 0 < header.height * header.width <= images.MAX_PIXELS


def check_prepared(data, folder):
    header = images.read_header(data)
    if header.height * header.width > 10**6:
        return  # a header may claim much: the cap is for the test's time
    for side in (0, 16):
        prepared = images.prepare(data, header, images.Form(side, 90, True), check="full")
        shape = tf.io.decode_jpeg(prepared.encoded, channels=3, try_recover_truncated=True).shape
        assert shape[:2] == (prepared.header.height, prepared.header.width)


def check_boxes(found):
    for ymin, xmin, ymax, xmax in found:
        assert 0 <= ymin < ymax <= 1
        assert 0 <= xmin < xmax <= 1


def check_xml(data, folder):
    check_boxes(boxes.scale(boxes.from_xml(data, WNID), 30, 40))


def check_csv(data, folder):
    path = folder / "LOC_train_solution.csv"
    path.write_bytes(data)
    for packed in imagenet._read_box_csv(str(path)).values():
        check_boxes(boxes.scale(packed, 30, 40))


def check_shard(data, folder):
    (folder / NAME).write_bytes(data)
    shard = verify.read_shard(NAME, folder=storage.folder(folder))
    assert shard["damage"].isprintable()
    assert shard["damage"] or len(shard["labels"]) == len(shard["digests"])


def check_manifest(data, folder):
    (folder / "manifest.json").write_bytes(data)
    for split in manifest.read_manifest(folder)["splits"]:
        for path in manifest.shard_paths(folder, split):
            assert path.startswith(f"{folder}/")
    manifest.class_names(folder)


IMAGES = [
    *(jpeg(30, 40, mode=mode) for mode in ("RGB", "L", "CMYK")),
    *(png(30, 40, mode=mode) for mode in ("RGB", "RGBA")),
    many_scans(30, 40, 5),
    grey_blocks(30, 40, ((2, 2), (1, 1), (1, 1))),
]
KINDS = {
    "header": (check_header, IMAGES),
    "image": (check_prepared, IMAGES),
    "xml": (check_xml, [XML]),
    "csv": (check_csv, [CSV]),
    "shard": (check_shard, None),
    "manifest": (check_manifest, None),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("fuzz"), classes=2, images=3, train_shards=1)


def examine(kind, cases, folder):
    check, originals = KINDS[kind]
    if originals is None:
        originals = [(folder / {"shard": NAME, "manifest": "manifest.json"}[kind]).read_bytes()]
    scratch = folder.with_name(kind)
    shutil.copytree(folder, scratch, dirs_exist_ok=True)
    answers = []

    @settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(damaged(originals))
    def one(data):
        try:
            check(data, scratch)
            answers.append("")
        except (ValueError, FileNotFoundError) as error:
            assert str(error).isprintable(), "more than one line, or none that a screen shows"
            answers.append(str(error))

    one()
    assert len(answers) >= cases
    assert kind == "shard" or "" in answers  # some damage does no harm
    assert kind == "shard" or any(answers)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_gets_an_answer_or_one_line(kind, folder):
    examine(kind, FEW, folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_much_damage_gets_an_answer_or_one_line(kind, folder):
    examine(kind, MANY, folder)


def test_manifest_reaches_no_other_folder(folder, tmp_path):
    found = json.loads((folder / "manifest.json").read_bytes())
    found["splits"]["train"]["shards"][0]["name"] = "../../etc/passwd"
    (tmp_path / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(ValueError, match="a shard named"):
        manifest.read_manifest(tmp_path)
