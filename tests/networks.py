"""Sections, training data and compiled networks for tests, from flat values as in params.yaml."""

import keras

from kit import params
from kit.model.resnet import resnet50
from kit.pipeline.dataset import TrainingData
from kit.training.losses import ClassificationLoss, metrics
from kit.training.optimizers import decay_in_loss, make_optimizer
from kit.training.step import training_model


def sections(**values):
    """Give the Parameters of params.yaml with some values changed; tuples stand for lists."""
    given = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    return params.load(overrides=given)


def network(*, classes=10, width=64, **values):
    """Give the ResNet-50 of these values."""
    p = sections(**values)
    return resnet50(p.network, classes=classes, decay=p.weight_decay, width=width)


def training_data(data_dir, *, worker=0, workers=1, **values):
    """Give the TrainingData of these values."""
    p = sections(**values)
    return TrainingData(
        data_dir=data_dir,
        reading=p.reading,
        crop=p.crop,
        augmentation=p.augmentation,
        mixing=p.mixing,
        image_size=p.resolution.image_size,
        batch_size=p.schedule.batch_size,
        fill=p.network.channel_means,
        seed=p.run.seed,
        deterministic=p.run.deterministic,
        worker=worker,
        workers=workers,
    )


def compile_model(strategy, *, classes=10, width=64, **values):
    """Give a TrainingModel under the strategy, compiled as notebook 02 does.

    `learning_rate` is that of the batch, whatever its size.
    """
    p = sections(**values)
    keras.config.set_dtype_policy(p.devices.precision)
    with strategy.scope():
        decay = decay_in_loss(p.optimizer, p.weight_decay)
        network = resnet50(p.network, classes=classes, decay=decay, width=width)
        model = training_model(network, freeze=p.initial.freeze)
        compile_as(model, p, xla=p.devices.xla == "true")
    return model


def compile_as(model, p, *, xla):
    """Compile as notebook 02 does, at the learning rate of the parameters."""
    model.compile(
        make_optimizer(model, p.optimizer, p.weight_decay, p.schedule.learning_rate),
        loss=ClassificationLoss(p.loss),
        metrics=metrics(),
        clip_grad_norm=p.optimizer.clip_grad_norm,
        ema_decay=p.optimizer.ema_decay,
        xla=xla,
    )
