"""What the doctor says of GPUs, from what TensorFlow reports of them on other machines."""

import pytest

from kit.doctor import gpus

WHEEL = {  # of TensorFlow 2.21 for Linux
    "is_cuda_build": True,
    "cuda_version": "12.5.1",
    "cudnn_version": "9",
    "cuda_compute_capabilities": ["sm_60", "sm_70", "sm_80", "sm_89", "compute_90"],
}
HOPPER = {"device_name": "NVIDIA H200", "compute_capability": (9, 0)}
BLACKWELL = {"device_name": "NVIDIA GeForce RTX 5090", "compute_capability": (12, 0)}


def said(cards, *, build=WHEEL, present=True, missing=()):
    return list(gpus.verdicts(cards, build, present=present, missing=list(missing)))


def test_a_card_that_the_wheel_has_code_for_is_ok():
    assert [state for state, _ in said([HOPPER, HOPPER])] == ["ok"]


def test_a_card_of_a_later_generation_is_a_problem_with_what_to_do():
    (_, (state, text)) = said([HOPPER, BLACKWELL])
    assert state == "problem"
    assert "RTX 5090 has compute capability 12.0, and this TensorFlow holds code up to 9.0" in text
    assert "take NVIDIA's TensorFlow container" in text
    newer = WHEEL | {"cuda_compute_capabilities": ["sm_90a", "compute_120"]}
    assert [state for state, _ in said([BLACKWELL], build=newer)] == ["ok"]


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (["libcudnn.so.9", "libnccl.so.2"], "libcudnn.so.9, libnccl.so.2 not found; pip install"),
        (["libcuda.so.1"], "libcuda.so.1 not found; repair NVIDIA's driver"),
        ([], "its libraries are found; look at CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_gpu_that_tensorflow_does_not_see_lacks_a_library_by_name(missing, words):
    ((state, text),) = said([], missing=missing)
    assert state == "problem" and words in text


def test_without_a_gpu_no_library_is_missed():
    assert [state for state, _ in said([], present=False)] == ["ok"]
    cpu = {"is_cuda_build": False}
    assert [state for state, _ in said([], build=cpu, present=False)] == ["ok"]
    ((state, text),) = said([], build=cpu)
    assert state == "problem" and "and-cuda" in text


def test_libraries_are_looked_for_in_the_loaders_paths_and_in_the_wheels(tmp_path):
    folder = tmp_path / "nvidia" / "cudnn" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcudnn.so.9").touch()
    wanted = ["libc.so.6", "libcudnn.so.9", "libno-such.so.1"]
    assert gpus.missing(wanted, site_packages=tmp_path) == ["libno-such.so.1"]
