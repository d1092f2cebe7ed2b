"""Sections of parameters and compiled networks for tests, from flat values as in params.yaml."""

import keras

from kit import params
from kit.model.resnet import resnet50
from kit.training.losses import ClassificationLoss, metrics
from kit.training.optimizers import decay_in_loss, make_optimizer
from kit.training.step import training_model


def sections(**values):
    """Give the recipe's Parameters with some values changed; tuples stand for lists."""
    given = {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
    return params.load(overrides=given)


def network(*, classes=10, width=64, **values):
    """Give the ResNet-50 of these values."""
    p = sections(**values)
    return resnet50(p.network, classes=classes, decay=p.weight_decay, width=width)


def compile_model(strategy, *, classes=10, width=64, **values):
    """Give a TrainingModel under the strategy, compiled as notebook 02 does.

    `learning_rate` is that of the batch, whatever its size.
    """
    p = sections(**values)
    keras.config.set_dtype_policy(p.devices.precision)
    with strategy.scope():
        decay = decay_in_loss(p.optimizer, p.weight_decay)
        model = training_model(resnet50(p.network, classes=classes, decay=decay, width=width))
        model.compile(
            make_optimizer(model, p.optimizer, p.weight_decay, p.schedule.learning_rate),
            loss=ClassificationLoss(p.loss),
            metrics=metrics(),
            clip_grad_norm=p.optimizer.clip_grad_norm,
            ema_decay=p.optimizer.ema_decay,
        )
    return model
