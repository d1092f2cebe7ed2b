"""PyTorch, torchvision and timm for the tests, which skip where `make test-all` has not been."""

import importlib.util
from pathlib import Path

import pytest


def torchvision():
    """Import torchvision, also where its wheel is CUDA's and PyTorch's is not.

    Its compiled operations then don't load, and it does not import without their names.
    """
    torch = pytest.importorskip("torch")
    spec = importlib.util.find_spec("torchvision")
    if spec and not hasattr(torch.ops.torchvision, "nms"):
        try:
            torch.ops.load_library(Path(spec.origin).with_name("_C.so"))
        except OSError:
            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")
            torchvision.library = library  # it lives as long as this
    return pytest.importorskip("torchvision")


def timm():
    torchvision()
    return pytest.importorskip("timm")


def torch():
    return pytest.importorskip("torch")
