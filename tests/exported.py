"""A small network with the files beside it, as notebook 02 leaves them: what can be exported."""

import json

import keras
import numpy as np

from kit.files import hash_file
from tests.networks import network

SIZE, RESIZE_SIDE = 32, 40
NAMES = ("red", "green", "blue", "grey", "black")


def write_run(run_dir, precision="float32", *, version="1.5", seed=2, **changes):
    """Write model.keras and model.json of a network with something to say; give run_dir.

    `changes` are of model.json.
    """
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    model = network(
        classes=len(NAMES),
        width=4,
        resnet_version=version,
        stage_sizes=(1, 1),
        batch_norm_momentum=0.5,
        blur_pool=True,
        drop_path=0.2,
    )
    keras.config.set_dtype_policy("float32")
    for _ in range(5):
        model(pixels(8).astype("float32"), training=True)
    head = model.get_layer("logits").kernel
    head.assign(np.random.default_rng(seed).normal(0, 1, head.shape))
    run_dir.mkdir(parents=True, exist_ok=True)
    model.save(run_dir / "model.keras")
    classes = [{"wnid": f"n{number}", "name": name} for number, name in enumerate(NAMES)]
    metadata = {"classes": classes, "image_size": SIZE, "resize_side": RESIZE_SIDE}
    metadata |= {"sha256": hash_file(run_dir / "model.keras")} | changes
    (run_dir / "model.json").write_text(json.dumps(metadata))
    return run_dir


def pixels(number, seed=0):
    """Give smooth coloured squares: uint8 [number, SIZE, SIZE, 3]."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 255, (number, 4, 4, 3))
    return corners.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2).astype(np.uint8)


def log_probabilities(model, images):
    logits = model(images.astype("float32"), training=False)
    return keras.ops.log_softmax(logits).numpy()
