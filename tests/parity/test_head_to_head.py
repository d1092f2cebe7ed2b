"""A hundred steps of the whole ResNet-50 on photographs, in the kit and in PyTorch."""

import numpy as np
import pytest

from kit.prep import demo
from tests import pytorch
from tests.images import prepare


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    raw_dir, data_dir = root / "raw", root / "shards"
    demo.make_demo(raw_dir=raw_dir, demo_views=800, seed=0)
    prepare(raw_dir, data_dir, subset=True, train_shards=8, check="header")
    return data_dir


@pytest.mark.slow
def test_the_loss_curve_is_pytorchs(data_dir, tmp_path, monkeypatch):
    """Equal at first; then as near as PyTorch is to itself from weights a last bit beside."""
    pytorch.torchvision()
    from tests.parity import head_to_head

    monkeypatch.setattr(head_to_head, "STEPS", 100)
    monkeypatch.setitem(head_to_head.VALUES, "epochs", 100)
    losses = head_to_head.compare(data_dir)
    head_to_head.draw(losses, tmp_path)
    kit, truth, other = losses.values()
    assert truth[-20:].mean() < 0.5 * truth[:20].mean()
    np.testing.assert_allclose(kit[:10], truth[:10], rtol=1e-4)
    assert np.abs(kit - truth).mean() <= 2 * np.abs(other - truth).mean() + 1e-3
