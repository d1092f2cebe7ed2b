"""The learning rate of each epoch or step."""

import math

import keras


def scaled_rate(*, learning_rate, learning_rate_batch, batch_size):
    """Give the rate of a batch in proportion to its size (Goyal et al. 2017, section 2.1).

    `learning_rate` is that of `learning_rate_batch` images; 0: of a batch of any size.
    """
    return learning_rate * (batch_size / (learning_rate_batch or batch_size))


def rate_of_epoch(
    epoch,
    *,
    epochs,
    learning_rate,
    rate_decay,
    decay_epochs,
    decay_factor,
    final_rate,
    polynomial_power,
    warmup_epochs,
    warmup_start,
):
    """Give the learning rate at `epoch`, which counts from 0 and may lie within an epoch.

    On a straight line it comes from `warmup_start` at 0 to `learning_rate` at `warmup_epochs`, as
    in timm, torchvision, FFCV and TensorFlow's official models. (NVIDIA's W epochs of
    rate * (epoch + 1) / W are W - 1 of ours from rate / W; what follows then begins an epoch
    earlier, which moves a cosine of 90 by 1.1 % of the highest rate.) Then `rate_decay` says:

    - steps: times `decay_factor` from each of `decay_epochs` on (He et al. 2015, section 3.4);
    - cosine: half a wave from here to `final_rate` at `epochs` (Loshchilov & Hutter 2017, eq. 5);
    - cosine_from_start: of a wave that began at 0, behind the warm-up, as timm's does by default;
    - linear, polynomial: (1 - share of the epochs from here) ** `polynomial_power`, linear: ** 1.
    """
    if epoch < warmup_epochs:
        return warmup_start + (learning_rate - warmup_start) * epoch / warmup_epochs
    if rate_decay == "steps":
        return learning_rate * decay_factor ** sum(epoch >= drop for drop in decay_epochs)
    begin = 0 if rate_decay == "cosine_from_start" else warmup_epochs
    done = min(1.0, (epoch - begin) / (epochs - begin))
    if rate_decay.startswith("cosine"):
        left = (1 + math.cos(math.pi * done)) / 2
    else:
        left = (1 - done) ** (polynomial_power if rate_decay == "polynomial" else 1)
    return final_rate + (learning_rate - final_rate) * left


def scheduler(*, rate_every, steps_per_epoch, **rates):
    """Give the Keras callback that sets the rate as each "epoch" or "step" begins.

    `rates` are the parameters of `rate_of_epoch`. An epoch's logs hold the rate of its last step.
    """
    if rate_every == "step":
        return EachStep(lambda step: rate_of_epoch(step / steps_per_epoch, **rates))
    return keras.callbacks.LearningRateScheduler(
        lambda epoch, rate_now: rate_of_epoch(epoch, **rates)
    )


class EachStep(keras.callbacks.LearningRateScheduler):
    """Set the rate of each step, by the optimizer's count: right in a training that is resumed."""

    def on_epoch_begin(self, epoch, logs=None):
        self.begun = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))

    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = self.schedule(self.begun + batch)
