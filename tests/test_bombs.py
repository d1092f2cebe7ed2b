"""Small files that ask for much: each reader takes less than 1 GB and 5 s, or refuses them.

Each is read in a process of its own, whose memory is measured: what it takes beyond its imports.
"""

import gzip
import io
import os
import struct
import subprocess
import sys
import tarfile
import zlib

import pytest
from PIL import Image

from kit import ROOT
from tests import jpegs, layouts
from tests.peak import peak_of_tree

pytestmark = pytest.mark.slow

SIDE = 9450  # just within the limit of pixels
READ = """
import sys, time
from functools import partial
from pathlib import Path
from kit.data import images
from kit.prep import devkit, imagenet, parquet, sources
try:
    import pyarrow.parquet
except ImportError:
    pass
from tests.images import index_of
from tests.peak import peak
import PIL.AvifImagePlugin, PIL.WebPImagePlugin
import tensorflow as tf
tf.io.decode_jpeg(tf.io.encode_jpeg(tf.zeros([8, 8, 3], tf.uint8)))

def image(path):
    data = path.read_bytes()
    form = images.Form(apply_orientation=True)
    images.prepare(data, images.read_header(data), form, check="full")

def boxes(path):
    imagenet.box_finder(str(path), [])

def mat(path):
    devkit.read_devkit(str(path.parent))

def rows(path):
    index = index_of(path.parent)
    parquet.read_image(str(path), index.images[0].position)

before, started = peak(), time.process_time()
try:
    globals()[sys.argv[1]](Path(sys.argv[2]))
    print("read")
except (ValueError, OSError) as error:
    assert str(error).isprintable()
    print("refused:", error)
print(time.process_time() - started)
print(peak() - before)
"""


def measured(reader, path):
    """Returns what was said, the seconds, and the gigabytes."""
    command = [sys.executable, "-c", READ, reader, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    said, seconds, gigabytes = done.stdout.splitlines()
    return said, float(seconds), float(gigabytes)


def saved(kind, mode="RGB", side=SIDE, **options):
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, kind, **options)
    return buffer.getvalue()


IMAGES = {
    "many scans.jpg": lambda: jpegs.many_scans(9400, 9400, 1000),
    "most scans.jpg": lambda: jpegs.many_scans(9400, 9400, 50),
    "baseline.jpg": lambda: saved("JPEG"),
    "progressive.jpg": lambda: saved("JPEG", progressive=True, subsampling=0),
    "cmyk.jpg": lambda: saved("JPEG", "CMYK"),
    "rgba.png": lambda: saved("PNG", "RGBA", compress_level=1),
    "palette.gif": lambda: saved("GIF", "P", transparency=0),
    "large.webp": lambda: saved("WEBP", "RGBA", 6680, lossless=True, quality=0, method=0),
    "large.tif": lambda: saved("TIFF", "RGBA", compression="tiff_lzw"),
    "large.avif": lambda: saved("AVIF", speed=10),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_at_the_limit(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(IMAGES[name]())
    said, seconds, gigabytes = measured("image", path)
    print(name, said[:80], seconds, gigabytes)
    assert seconds < 5 and gigabytes < 1
    assert said == "read" or name == "many scans.jpg"


def tar_of_names(path):
    """Names of 60,000 characters, which pack to nothing."""
    with gzip.open(path, "wb", 9) as file:
        for number in range(8000):
            name = f"{number}{'n' * 60_000}.txt\0".encode()
            file.write(header("././@LongLink", len(name), tarfile.GNUTYPE_LONGNAME))
            file.write(name + bytes(-len(name) % 512))
            file.write(header(f"{number}.txt", 0))


def tar_of_members(path):
    with gzip.open(path, "wb", 9) as file:
        some = b"".join(header(f"{number}.txt", 0) for number in range(7000))
        for _ in range(100):
            file.write(some)


def tar_of_zeros(path):
    with gzip.open(path, "wb", 1) as file:
        file.write(header("a.txt", 2**31 - 2048))
        for _ in range(2**7):
            file.write(bytes(2**24))


def tar_of_large_boxes(path):
    """Files of a megabyte that pack to nothing: 11,000 boxes in each."""
    sides = b"".join(b"<%s>1</%s>" % (s, s) for s in (b"ymin", b"xmin", b"ymax", b"xmax"))
    box = b"<object><bndbox>" + sides + b"</bndbox></object>"
    data = b"<a><size><width>1</width><height>1</height></size>" + box * 11_000 + b"</a>"
    with gzip.open(path, "wb", 1) as file:
        for number in range(40):
            file.write(
                header(f"n01440764_{number}.xml", len(data)) + data + bytes(-len(data) % 512)
            )


def header(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("make", [tar_of_names, tar_of_members, tar_of_zeros, tar_of_large_boxes])
def test_archives(tmp_path, make):
    path = tmp_path / "ILSVRC2012_bbox_train_v2.tar.gz"
    make(path)
    said, seconds, gigabytes = measured("boxes", path)
    print(make.__name__, path.stat().st_size, said[:200], seconds, gigabytes)
    assert said.startswith("refused:") and "ILSVRC2012_bbox" in said
    assert seconds < 5 and gigabytes < 1


def element(kind, payload):
    return struct.pack("<II", kind, len(payload)) + payload + bytes(-len(payload) % 8)


def mat_of(*parts):
    return bytes(124) + b"\0\1IM" + b"".join(parts)


def packed(payload):
    data = zlib.compress(payload, 9)
    return struct.pack("<II", 15, len(data)) + data


def mat_of_cells(count):
    """A structure whose cells are empty, eight bytes each."""
    flags = element(6, struct.pack("<II", 2, 0))
    sizes, name = element(5, struct.pack("<ii", 1, count)), element(1, b"")
    fields = element(5, struct.pack("<i", 8)) + element(1, b"a".ljust(8, b"\0"))
    cells = struct.pack("<II", 14, 0) * count
    return element(14, flags + sizes + name + fields + cells)


MATS = {
    "most cells": lambda: mat_of(packed(mat_of_cells(2**20 - 100))),
    "many cells": lambda: mat_of(packed(mat_of_cells(2**23))),
    "many parts": lambda: mat_of(*[packed(element(14, bytes(2**22)))] * 500),
}


@pytest.mark.parametrize("name", MATS)
def test_devkits(tmp_path, name):
    (tmp_path / "meta.mat").write_bytes(MATS[name]())
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n")
    said, seconds, gigabytes = measured("mat", tmp_path / "meta.mat")
    print(name, said[:200], seconds, gigabytes)
    assert said.startswith("refused:") and seconds < 5 and gigabytes < 1


ROWS = {
    "label": lambda: [(n % 2, f"{n}.jpg", b"x") for n in range(9)] + [(2**31 - 1, "x.jpg", b"")],
    "name": lambda: [(n % 2, f"{n}{'y' * 2**20}.jpg", b"x") for n in range(20)],
}


@pytest.mark.parametrize("name", ROWS)
def test_parquet(tmp_path, name):
    pytest.importorskip("pyarrow")
    layouts.write_parquet(tmp_path / "train-00000-of-00001.parquet", ROWS[name](), [])
    said, seconds, gigabytes = measured("rows", tmp_path / "train-00000-of-00001.parquet")
    print(name, said[:200], seconds, gigabytes)
    assert said.startswith("refused:") and seconds < 5 and gigabytes < 1


FOLDER = """
import sys
from pathlib import Path
import numpy as np
from kit.inference.classifier import Classifier
from tests.peak import peak
names = [{"wnid": "a", "name": "a"}, {"wnid": "b", "name": "b"}]
metadata = {"classes": names, "image_size": 64, "resize_side": 73}
classifier = Classifier(lambda pixels: np.full([len(pixels), 2], 0.5, "f4"), metadata)
small, large = sys.argv[1:]
classifier.probabilities([Path(small)])
before = peak()
classifier.probabilities([Path(large)] * 6)
print(peak() - before)
"""


def test_a_folder_of_images_at_the_limit_at_once(tmp_path):
    (tmp_path / "large.png").write_bytes(IMAGES["rgba.png"]())
    Image.new("RGB", (80, 80)).save(tmp_path / "small.png")
    command = [sys.executable, "-c", FOLDER, tmp_path / "small.png", tmp_path / "large.png"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 1


PREPARE = """
import sys
from tests.images import prepare
if __name__ == "__main__":
    prepare(sys.argv[1], sys.argv[2], processes=4, train_shards=4, validation_shards=1)
"""


def test_processes_of_preparation_take_turns_with_images_at_the_limit(tmp_path):
    """Four that have large images alone, 0.7 GB each: one of these at a time, and TensorFlow.

    Without turns they take 4.0 GB.
    """
    large = IMAGES["rgba.png"]()
    for number in range(16):
        path = tmp_path / f"raw/class{number % 2}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(large)
    (tmp_path / "program.py").write_text(PREPARE)  # spawned processes import it
    command = [sys.executable, tmp_path / "program.py", tmp_path / "raw", tmp_path / "shards"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = subprocess.Popen(command, cwd=ROOT, env=environment)
    gigabytes = peak_of_tree(program)
    print(gigabytes)
    assert program.returncode == 0
    assert 1.5 < gigabytes < 2.8
