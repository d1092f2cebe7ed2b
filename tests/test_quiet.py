"""TensorFlow's own lines do not reach users."""

import os
import subprocess
import sys

from jupyter_client.manager import start_new_kernel

from kit import ROOT, muted

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
