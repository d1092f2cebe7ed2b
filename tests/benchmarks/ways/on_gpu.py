"""What gpu.py trains, in a process of its own: python -m ways.on_gpu '{"program": "kit", ...}'.

The argument is a Way of gpu.py, and `launched`, when the process was started. A program returns
images_per_second of each round, and: first_step, the seconds until it was done; between, of an
epoch's end; peak_gib of memory; versions. The process prints it as JSON, in its last line.
"""

import json
import statistics
import sys
import tempfile
import time
from types import SimpleNamespace


def kit(way) -> dict:
    """Train in the kit's `fit`, checkpoints and validation included."""
    import tensorflow as tf

    from kit.training.strategy import mirrored
    from ways import kit_fit

    strategy = mirrored((f"{way.device}:0",)) if way.strategy else tf.distribute.get_strategy()
    epochs = kit_fit.Epochs()
    with tempfile.TemporaryDirectory() as run_dir:
        history = kit_fit.fit(
            compiled(strategy, way),
            *batch(way),
            run_dir,
            epochs=way.rounds + 1,  # the first compiles
            steps=way.steps + 1,  # and an epoch's first step does not count
            callbacks=[epochs],
            validate=way.validate,
        )
    return {
        "images_per_second": history["images_per_second"][1:],
        "first_step": epochs.first_step - way.launched,
        "between": statistics.median(epochs.between[1:]),
        "validation": statistics.median(epochs.validation[1:]),
    } | tensorflow_says(way)


def compiled(strategy, way):
    from ways import kit_fit

    names = ("precision", "xla", "fused", "classes", "width", "stage_sizes")
    return kit_fit.compiled(strategy, **{name: getattr(way, name) for name in names})


def batch(way):
    from ways import kit_fit

    return kit_fit.random_batch(batch_size=way.batch_size, side=way.side, classes=way.classes)


def tensorflow_says(way) -> dict:
    import keras
    import tensorflow as tf

    versions, peak = f"TensorFlow {tf.__version__}, Keras {keras.__version__}", None
    if way.device == "GPU":
        card = tf.config.list_physical_devices("GPU")[0]
        versions += f", {tf.config.experimental.get_device_details(card).get('device_name')}"
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30
    return {"versions": versions, "peak_gib": peak}


def two_logical(way) -> dict:
    """Compare the losses of one device with those of two logical ones on the same card.

    Both halves of a batch are the same images, so that each replica's batch norm sees what one
    device's does. The speed is that of the two.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from kit.training.strategy import mirrored
    from ways import kit_fit

    tf.config.experimental.enable_tensor_float_32_execution(False)
    memory = {"memory_limit": 8192} if way.device == "GPU" else {}  # MB
    logical = [tf.config.LogicalDeviceConfiguration(**memory) for _ in range(2)]
    device = tf.config.list_physical_devices(way.device)[0]
    tf.config.set_logical_device_configuration(device, logical)
    images, labels = (np.concatenate([half, half]) for half in batch(way))
    found = []
    for replicas in (1, 2):
        keras.utils.set_random_seed(0)
        model = compiled(mirrored(tuple(f"{way.device}:{i}" for i in range(replicas))), way)
        settings = {"epochs": way.rounds + 1, "steps": way.steps}
        with tempfile.TemporaryDirectory() as run_dir:
            found.append(kit_fit.fit(model, images, labels, run_dir, **settings))
    one, two = (np.array(history["loss"]) for history in found)
    return {
        "images_per_second": found[1]["images_per_second"][1:],
        "apart": float(np.max(np.abs(one - two) / one)),
        "first_step": None,
        "between": None,
    } | tensorflow_says(way)


def keras_fit(way) -> dict:
    """Train keras.applications.ResNet50 in Keras' own `fit`, on float32 images as it wants them."""
    import keras

    from ways import kit_fit

    keras.config.set_dtype_policy(way.precision)
    model = keras.applications.ResNet50(
        weights=None,
        input_shape=(way.side, way.side, 3),
        classes=way.classes,
        classifier_activation=None,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    images, labels = batch(way)
    times = []  # Keras has just read the step's logs, so it is done

    def note(batch, logs):
        times.append(time.time())

    model.fit(
        kit_fit.repeated(images.astype("float32"), labels),
        epochs=way.rounds + 1,
        steps_per_epoch=way.steps + 1,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note)],
        shuffle=False,
        verbose=0,
    )
    firsts = range(way.steps + 1, len(times), way.steps + 1)
    seconds = [times[first + way.steps] - times[first] for first in firsts]
    return {
        "images_per_second": [way.batch_size * way.steps / spent for spent in seconds],
        "first_step": times[0] - way.launched,
        "between": None,
    } | tensorflow_says(way)


def pytorch(way) -> dict:
    """Train the same network in PyTorch, channels last, with autocast; `xla` means compiled."""
    import torch

    device = {"GPU": "cuda", "CPU": "cpu"}[way.device]
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU")
    step = torch_step(way, device)

    def seconds(steps):
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    seconds(1)
    first_step = time.time() - way.launched
    seconds(way.steps)
    found = {
        "images_per_second": [
            way.batch_size * way.steps / seconds(way.steps) for _ in range(way.rounds)
        ],
        "first_step": first_step,
        "between": None,
        "peak_gib": None,
        "versions": f"PyTorch {torch.__version__}",
    }
    if device == "cuda":
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        found["versions"] += f", {torch.cuda.get_device_name()}"
    return found


def torch_step(way, device):
    """Give a function that takes the batch from the host and trains a step."""
    import torch

    from ways.torch_resnet import resnet50

    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32 for what autocast leaves in float32
    model = resnet50(way.classes, width=way.width, stage_sizes=way.stage_sizes)
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    means = torch.tensor([123.68, 116.779, 103.939], device=device).reshape(1, 3, 1, 1)

    def loss(images, labels):
        with torch.autocast(device, torch.bfloat16, enabled=way.precision == "mixed_bfloat16"):
            logits = model(images.float() - means)
        return torch.nn.functional.cross_entropy(logits.float(), labels)

    if way.xla:
        loss = torch.compile(loss, backend="inductor" if device == "cuda" else "aot_eager")
    images, labels = (torch.from_numpy(part) for part in batch(way))
    if device == "cuda":
        images, labels = images.pin_memory(), labels.pin_memory()

    def step():
        pixels = images.to(device, non_blocking=True).permute(0, 3, 1, 2)  # channels stay last
        optimizer.zero_grad()
        loss(pixels, labels.to(device, non_blocking=True)).backward()
        optimizer.step()

    return step


PROGRAMS = {"kit": kit, "two_logical": two_logical, "keras_fit": keras_fit, "pytorch": pytorch}

if __name__ == "__main__":
    way = SimpleNamespace(**json.loads(sys.argv[1]))
    print(json.dumps(PROGRAMS[way.program](way)), flush=True)
