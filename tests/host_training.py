"""One host of a small training, for test_several_hosts.py: TF_CONFIG says which, if there are more.

python -m tests.host_training DATA_DIR RUN_DIR CHANGES, with JSON for what differs from the training
of small_training.py. RUN_DIR/host0.json, host1.json and so on tell what each host saw and made.
"""

import hashlib
import json
import sys
from pathlib import Path

import keras
import numpy as np

from kit.files import replacing
from kit.training import cluster, strategy, trainer
from tests import small_training
from tests.networks import compile_model


class Saw(keras.callbacks.Callback):
    """Note which images this host trained on at each step, and say how far it is."""

    def __init__(self, path):
        super().__init__()
        self.path, self.steps = path, []

    def on_train_batch_end(self, batch, logs=None):
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self.steps.append([step, digests(self.model.distribute_strategy, self.model.batch)])
        self.path.write_text(str(step))


def digests(devices, batch):
    """Name the images of a batch that are on this host's devices, in their order."""
    pixels = [part.numpy() for part in devices.experimental_local_results(batch[0])]
    return [hashlib.md5(image.tobytes()).hexdigest() for part in pixels for image in part]


def main(data_dir, run_dir, changes):
    here = cluster.find()
    own = Path(here.own_dir(run_dir))
    devices = strategy.make_strategy(replicas=changes.pop("replicas", 0))
    trainer.set_seed(0, deterministic=True)
    batch_norm = changes.pop("batch_norm", "per_replica")
    model = compile_model(devices, **small_training.NETWORK | {"batch_norm": batch_norm})
    saw = Saw(Path(run_dir) / f"host{here.number}.step")
    part = {"batch_size": 12, "worker": here.number, "workers": here.count}
    history = small_training.train(model, data_dir, own, callbacks=[saw], **part | changes)
    validation = small_training.validation_data(data_dir, **part)
    spread = strategy.for_host(devices, validation, batch_size=12)
    found = {
        "history": history.history,
        "weights": [np.ravel(weight).tolist() for weight in model.get_weights()],
        "trained": saw.steps,
        "validated": [digests(devices, batch) for batch in spread],
        "wrote": sorted(path.name for path in own.iterdir()),
        "own": str(own),
    }
    with replacing(Path(run_dir) / f"host{here.number}.json") as path:
        path.write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
