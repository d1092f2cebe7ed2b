"""One host of a small training, for test_several_hosts.py: TF_CONFIG says which, if there are more.

python -m tests.host_training DATA_DIR RUN_DIR CHANGES, with JSON for what differs from the training
of small_training.py. RUN_DIR/host0.json, host1.json and so on tell what each host saw and made.
"""

import hashlib
import json
import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np

from kit.files import replacing
from kit.pipeline import dataset
from kit.training import cluster, schedule, strategy, trainer
from tests.small_training import IMAGES, NETWORK, RATES, RUN


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
    trainer.fix_chance(seed=0, deterministic=True)
    network = NETWORK | {"batch_norm": changes.pop("batch_norm", "per_replica")}
    model = trainer.compile_model(devices, **network)
    images = IMAGES | {"batch_size": changes.pop("batch_size", 12)}
    part = {"data_dir": data_dir, "worker": here.number, "workers": here.count}
    validation = dataset.evaluation_dataset(
        split="validation", batch_size=images["batch_size"], image_size=32, resize_side=36, **part
    )
    saw = Saw(Path(run_dir) / f"host{here.number}.step")
    history = trainer.fit(
        model,
        partial(dataset.training_dataset, **part, **images),
        validation,
        run_dir=own,
        schedule=schedule.scheduler(**RATES),
        watchers=[saw],
        **RUN | changes,
    )
    spread = strategy.for_host(devices, validation, batch_size=images["batch_size"])
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
