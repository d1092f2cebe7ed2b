"""TensorFlow's own lines do not reach users."""

import io
import itertools
import os
import random
import subprocess
import sys

import tensorflow as tf
from jupyter_client.manager import start_new_kernel

from kit import ROOT, muted
from kit.data import images
from tests.images import class_folders, picture, prepare
from tests.small_training import training_data, validation_data

FIRST_CELLS = (
    "from kit.pipeline import dataset",
    "import tensorflow as tf; print(tf.function(lambda x: x @ x)(tf.ones([2, 2])).numpy().sum())",
)


def test_a_notebook_opened_by_hand_shows_no_line_of_tensorflows():
    environment = {name: value for name, value in os.environ.items() if "TF_" not in name}
    manager, client = start_new_kernel(env=environment, cwd=ROOT / "notebooks")
    said = []
    try:
        for cell in FIRST_CELLS:
            client.execute_interactive(cell, timeout=120, output_hook=said.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    streams = [message["content"] for message in said if message["msg_type"] == "stream"]
    assert streams == [{"name": "stdout", "text": "8.0\n"}]


def test_stderr_comes_back_after_what_is_muted(capfd):
    with muted():
        os.write(2, b"unheard")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_a_program_without_stderr_imports_tensorflow():
    program = "import os; os.close(2); import kit, tensorflow; print(tensorflow.constant(1) + 1)"
    found = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
    assert found.returncode == 0 and b"2" in found.stdout


def test_nothing_of_libjpegs_is_heard_of_images_that_it_complains_of(tmp_path, capfd):
    """Bytes stand behind the last pixels of a third of the images, a wrong marker in another."""
    files = sorted(class_folders(tmp_path / "raw", classes=3, images=8).rglob("*.jpg"))
    for path in files[::3]:
        data = path.read_bytes()
        path.write_bytes(data[:-2] + bytes(20) + data[-2:])
    for path in files[1::3]:
        data = path.read_bytes()
        path.write_bytes(data[:-200] + b"\xff\xd0" + data[-198:])
    tf.io.decode_jpeg(files[0].read_bytes())
    assert "extraneous bytes" in capfd.readouterr().err  # so it is heard, here
    prepared = prepare(tmp_path / "raw", tmp_path / "shards")
    found = {item["file"]: item["reason"] for item in prepared["reencoded"]}
    for path in files[::3]:
        reason = "damaged in part (Corrupt JPEG data: N extraneous bytes before marker N)"
        assert found.pop(f"{path.parent.name}/{path.name}") == reason
    assert len(found) == len(files[1::3])
    for batch in training_data(tmp_path / "shards").batches().take(12):
        assert batch
    for batch in validation_data(tmp_path / "shards"):
        assert batch
    assert capfd.readouterr().err == ""


def test_nothing_of_libtiffs_is_heard_of_damaged_images(capfd):
    source, refused = random.Random(0), 0
    for kind, _ in itertools.product(("tiff_lzw", "tiff_adobe_deflate", "group4"), range(60)):
        buffer = io.BytesIO()
        picture(40, 50).convert("1" if kind == "group4" else "RGB").save(
            buffer, "TIFF", compression=kind
        )
        data = bytearray(buffer.getvalue())
        for _ in range(4):
            data[source.randrange(len(data))] = source.choice([0, 255])
        try:
            images.to_jpeg(bytes(data))
        except ValueError:
            refused += 1
    assert refused > 30 and capfd.readouterr().err == ""
