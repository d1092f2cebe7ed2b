"""Two hundred steps of the whole ResNet-50 on photographs, in the kit and in PyTorch."""

import numpy as np
import pytest

from kit.prep import demo, sources, writer
from tests import pytorch


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    raw_dir, data_dir = root / "raw", root / "shards"
    demo.make_demo(raw_dir=raw_dir, demo_views=800, seed=0)
    index = sources.read_index(raw_dir=raw_dir, validation_fraction=0.1, seed=0, subset=True)
    writer.write_shards(
        index,
        data_dir=data_dir,
        raw_dir=raw_dir,
        train_shards=8,
        validation_shards=1,
        seed=0,
        check="header",
        store_short_side=0,
        store_quality=90,
        quarantine_budget=0.0,
        processes=1,
        spark_master="",
    )
    return data_dir


@pytest.mark.slow
def test_the_loss_curve_is_pytorchs(data_dir, tmp_path):
    """Equal at first; then as near as PyTorch is to itself from weights a last bit beside."""
    pytorch.torchvision()
    from tests.parity import head_to_head

    losses = head_to_head.compare(data_dir)
    head_to_head.draw(losses, tmp_path)
    kit, truth, other = losses.values()
    assert truth[-20:].mean() < 0.5 * truth[:20].mean()
    np.testing.assert_allclose(kit[:10], truth[:10], rtol=1e-4)
    assert np.abs(kit - truth).mean() <= 2 * np.abs(other - truth).mean() + 1e-3
