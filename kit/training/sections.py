"""The parameters of training."""

import itertools
import math
from dataclasses import dataclass

from kit.sections import Section, at_least, below, free, limited, one_of, within


@dataclass(frozen=True)
class Devices(Section):
    """Which devices train, and in which precision."""

    replicas: int = at_least(0, "0 takes every GPU, or one CPU")
    precision: str = one_of("float32", "mixed_bfloat16")
    xla: str = one_of("auto", "true", "false")

    def check(self, replicas: int, batch_size: int) -> None:
        """Raise ValueError unless a batch divides among the replicas."""
        if batch_size % replicas:
            down = batch_size // replicas * replicas
            nearest = f"{down} or {down + replicas}" if down else replicas
            raise ValueError(
                f"batch_size: {batch_size} does not divide among {replicas} replicas; "
                f"take {nearest}"
            )

    def check_xla(self, synchronized: bool, deterministic: bool) -> None:
        """Raise ValueError for what XLA cannot compile."""
        if self.xla == "true" and deterministic:
            raise ValueError(
                "xla: true has no deterministic gradient of max pooling, which deterministic: true "
                "asks for; take xla: auto, or deterministic: false"
            )
        if self.xla == "true" and synchronized:
            raise ValueError(
                "xla: true cannot compile batch_norm: synchronized, which asks the other replicas "
                "within the forward pass; take xla: auto, or batch_norm: per_replica"
            )


@dataclass(frozen=True)
class Loss(Section):
    """The loss, without the weight decay."""

    loss: str = one_of("cross_entropy", "binary_cross_entropy")
    label_smoothing: float = below(1, "take 0.1")
    target_threshold: float = below(1, "take 0.2")
    class_weights: str = one_of("none", "balanced")

    def conflicts(self):
        if self.target_threshold and self.loss != "binary_cross_entropy":
            yield (
                f"target_threshold: {self.target_threshold} means nothing to loss: {self.loss}; "
                "take 0, or binary_cross_entropy"
            )
        elif self.target_threshold and self.label_smoothing:
            yield (
                f"label_smoothing: {self.label_smoothing} is undone by target_threshold: "
                f"{self.target_threshold}, which makes labels 0 or 1; take 0.0 of either"
            )


@dataclass(frozen=True)
class Optimizer(Section):
    """The optimizer, and what is done to gradients and weights around it."""

    optimizer: str = one_of("sgd", "lamb")
    momentum: float = below(1, "take 0.9")
    clip_grad_norm: float = at_least(0, "take 1.0, or 0 for no limit")
    ema_decay: float = below(1, "take 0.9999, or 0 for no average")
    body_rate_factor: float = limited(
        lambda value: (
            ""
            if value > 0
            else f"{value} is not above 0; take 0.1, or freeze: body to keep weights"
        )
    )


def epochs_or_shares(value) -> str:
    if all(before < epoch for before, epoch in itertools.pairwise([0, *value])):
        return ""
    return f"{value} are not rising epochs, or shares of the epochs; [0.3, 0.6, 0.8, 0.9]?"


@dataclass(frozen=True)
class Schedule(Section):
    """How long to train, and the learning rate of each epoch or step.

    A number of epochs below 1 is a share of `epochs`, so that the schedule follows `epochs`.
    """

    batch_size: int = at_least(1, "take 32")
    epochs: int = at_least(1, "take 1 or more")
    steps_per_epoch: int = at_least(0, "0 is one pass over the training images")
    learning_rate: float = at_least(0, "take 0.1")
    base_batch_size: int = at_least(0, "0 leaves learning_rate as it is")
    schedule: str = one_of("steps", "cosine", "cosine_from_start", "linear")
    schedule_update: str = one_of("epoch", "step")
    decay_epochs: list = limited(epochs_or_shares)
    decay_factor: float = within(0, 1, "take 0.1")
    final_learning_rate: float = at_least(0, "take 0.0")
    warmup_epochs: float = at_least(0, "take 0 for none")
    warmup_learning_rate: float = at_least(0, "take 0.0")

    @property
    def warmup(self) -> float:
        """The epochs of warm-up."""
        if not 0 < self.warmup_epochs < 1:
            return self.warmup_epochs
        return min(self._whole(self.warmup_epochs), self.epochs - 1)

    @property
    def drops(self) -> list[float]:
        """The epochs from which the rate is multiplied by `decay_factor`."""
        return [self._whole(epoch) if epoch < 1 else epoch for epoch in self.decay_epochs]

    def _whole(self, share: float) -> int:
        return max(1, round(share * self.epochs))

    def scaled(self, learning_rate: float) -> float:
        """Return a rate in proportion to the batch (Goyal et al. 2017, section 2.1).

        `learning_rate` is for a batch of `base_batch_size` images; with 0, for a batch of any size.
        """
        return learning_rate * (self.batch_size / (self.base_batch_size or self.batch_size))

    def rate(self, epoch: float) -> float:
        """Return the learning rate at `epoch`, which counts from 0 and may lie within an epoch.

        During the warm-up it rises in a straight line from `warmup_learning_rate` at 0 to
        `learning_rate`, as in timm, torchvision, FFCV and TensorFlow's official models. (NVIDIA's W
        epochs of rate * (epoch + 1) / W are W - 1 of ours from rate / W; what follows then begins
        an epoch earlier, which moves a cosine of 90 by 1.1 % of the highest rate.) Then:

        - steps: multiplied by `decay_factor` at each of `drops` (He et al. 2015, section 3.4);
        - cosine: half a wave from the warm-up's end to `final_learning_rate` at `epochs`
          (Loshchilov & Hutter 2017, eq. 5);
        - cosine_from_start: half a wave from 0, whose first part the warm-up replaces: timm's
          default;
        - linear: a straight line to `final_learning_rate` at `epochs`.
        """
        peak, final = self.scaled(self.learning_rate), self.scaled(self.final_learning_rate)
        if epoch < self.warmup:
            start = self.scaled(self.warmup_learning_rate)
            return start + (peak - start) * epoch / self.warmup
        if self.schedule == "steps":
            return peak * self.decay_factor ** sum(epoch >= drop for drop in self.drops)
        begin = 0 if self.schedule == "cosine_from_start" else self.warmup
        done = min(1.0, (epoch - begin) / (self.epochs - begin))
        left = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return final + (peak - final) * left

    def conflicts(self):
        if self.warmup >= self.epochs:
            yield (
                f"warmup_epochs: {self.warmup_epochs:g} leaves nothing of {self.epochs} epochs; "
                "take fewer, a share such as 0.05, or 0"
            )
        elif self.warmup and not self.warmup_learning_rate and self.schedule_update == "epoch":
            yield (
                "warmup_learning_rate: 0.0 is the rate of the whole first epoch, which then learns "
                f"nothing; take learning_rate / {self.warmup + 1:g}, or schedule_update: step"
            )
        late = [epoch for epoch in self.decay_epochs if epoch > self.epochs]
        if self.schedule == "steps" and late:  # else drops of the rate would be left out in silence
            yield (
                f"decay_epochs: {late[0]:g} is after the last of {self.epochs} epochs; take "
                "earlier ones, or shares such as [0.3, 0.6, 0.8, 0.9]"
            )
        if self.final_learning_rate > self.learning_rate:
            yield (
                f"final_learning_rate: {self.final_learning_rate} is above learning_rate: "
                f"{self.learning_rate}, and the rate would rise; take a lower one, or 0.0"
            )


@dataclass(frozen=True)
class Saving(Section):
    """When checkpoints are saved, how many are kept, and which becomes the model."""

    checkpoint_minutes: float = at_least(0, "0 saves at the end of each epoch alone")
    keep_checkpoints: int = at_least(1, "take 3")
    on_save_error: str = one_of("stop", "continue")
    patience: int = at_least(0, "take 5, or 0 to train all epochs")


def bands(value) -> str:
    for band in value:
        try:
            epoch, lowest, highest = band
            right = epoch >= 1 and epoch == int(epoch) and 0 <= lowest <= highest <= 1
        except (TypeError, ValueError, OverflowError):
            right = False
        if not right:
            return f"{band} is no [epoch, lowest, highest], such as [90, 0.76, 0.77]"
    return ""


@dataclass(frozen=True)
class Monitoring(Section):
    """What is shown while a network trains."""

    expected_top1: list = limited(bands)
    outside_band: str = one_of("warn", "stop")
    tensorboard: bool = free()
