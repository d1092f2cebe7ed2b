"""The learning rate of each epoch."""

import keras


def rate_of_epoch(epoch, *, learning_rate, decay_epochs, decay_factor, warmup_epochs):
    """Give the learning rate of an epoch, counted from 0.

    It rises in equal steps over `warmup_epochs` (Goyal et al. 2017, section 2.2), then is
    multiplied by `decay_factor` from each of `decay_epochs` on (He et al. 2015, section 3.4).
    """
    if epoch < warmup_epochs:
        return learning_rate * (epoch + 1) / (warmup_epochs + 1)
    drops = sum(epoch >= boundary for boundary in decay_epochs)
    return learning_rate * decay_factor**drops


def scheduler(**parameters):
    """Give the Keras callback that sets `rate_of_epoch` as each epoch begins; same parameters."""
    return keras.callbacks.LearningRateScheduler(
        lambda epoch, rate_now: rate_of_epoch(epoch, **parameters)
    )
