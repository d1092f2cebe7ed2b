"""What can be known wrong before any device is touched; `python -m kit run` asks it first."""

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
OPTIMIZERS = ("sgd", "lamb")
LOSSES = ("cross_entropy", "binary_cross_entropy")
RATE_DECAYS = ("steps", "cosine", "cosine_from_start", "linear", "polynomial")
WRONG_ON_REPLICAS = {  # argument of Keras' optimizers or of compile: what it does there
    "clipnorm": "clips each replica's gradient before their sum",
    "global_clipnorm": "clips each replica's gradient before their sum",
    "clipvalue": "clips each replica's gradient before their sum",
    "gradient_accumulation_steps": "fails in the first step",
    "ema_overwrite_frequency": "fails in the first step; take ema_decay",
    "jit_compile": "fails or hangs (keras#19005, keras#20763)",
}


def check_batch(*, batch_size, replicas):
    """Raise ValueError unless the global batch divides evenly among the replicas."""
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} holds no image; take {replicas} or more")
    if batch_size % replicas:
        down = batch_size // replicas * replicas
        nearest = f"{down} or {down + replicas}" if down else replicas
        raise ValueError(
            f"batch_size: {batch_size} does not divide among {replicas} replicas; take {nearest}"
        )


def check_precision(*, precision, replicas):
    """Raise ValueError unless Keras trains right at this precision on so many replicas."""
    check_choice(precision, PRECISIONS, "precision")
    if precision == "mixed_float16" and replicas > 1:
        raise ValueError(
            "precision: mixed_float16 on several replicas checks only the first for overflow "
            "(keras#18666); take mixed_bfloat16 or float32"
        )


def check_sizes(*, image_size, test_size, resize_side):
    """Raise ValueError unless the centre crop fits into the resized image, all in pixels.

    The crop is `test_size`, or `image_size` where that is 0.
    """
    name, size = ("test_size", test_size) if test_size else ("image_size", image_size)
    for name_of, pixels in (("image_size", image_size), (name, size)):
        if pixels < 32:
            raise ValueError(
                f"{name_of}: {pixels} leaves nothing after five halvings; take 32 or more"
            )
    if size > resize_side:
        raise ValueError(
            f"{name}: {size} is larger than resize_side: {resize_side}; for the centre "
            f"crop to fit, take a resize_side of about {round(size * 256 / 224)}"
        )


def check_steps(*, steps_per_epoch):
    """Raise ValueError for fewer than no steps; 0 is one pass."""
    if steps_per_epoch < 0:
        raise ValueError(
            f"steps_per_epoch: {steps_per_epoch} is below 0; take 0 for one pass over the images"
        )


def check_training_sizes(*, training_sizes, epochs):
    """Raise ValueError unless each of training_sizes is [epoch, pixels], the epochs rising.

    Sizes are multiples of 32, by which the network divides them: the last stage then sees no more
    of an image's border at one size than at another.
    """
    before = -1
    for pair in training_sizes:
        if (
            not isinstance(pair, list | tuple)
            or len(pair) != 2
            or not all(type(number) is int for number in pair)
            or pair[0] <= before
        ):
            raise ValueError(
                f"training_sizes: {pair} is no [epoch, pixels] after those before it, such as "
                "[0, 160], [12, 192]"
            )
        before, pixels = pair
        if pixels < 32 or pixels % 32:
            near = max(32, round(pixels / 32) * 32)
            raise ValueError(f"training_sizes: {pixels} is no multiple of 32; take {near}")
        if before >= epochs:
            raise ValueError(
                f"training_sizes: epoch {before} never comes, for there are {epochs}, counted from "
                "0; leave it out"
            )


def check_loss(*, loss, label_smoothing, target_threshold):
    """Raise ValueError unless these make a loss together."""
    check_choice(loss, LOSSES, "loss")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing: {label_smoothing} is no share from 0 to below 1")
    if not 0 <= target_threshold < 1:
        raise ValueError(f"target_threshold: {target_threshold} is no share from 0 to below 1")
    if target_threshold and loss != "binary_cross_entropy":
        raise ValueError(
            f"target_threshold: {target_threshold} means nothing to loss: {loss}; take 0, or "
            "binary_cross_entropy"
        )
    if target_threshold and label_smoothing:
        raise ValueError(
            f"label_smoothing: {label_smoothing} is undone by target_threshold: "
            f"{target_threshold}, which makes labels 0 or 1; take 0.0 of either"
        )


def check_optimizer(*, optimizer, clip_norm, ema_decay):
    """Raise ValueError unless an optimizer can be made of these."""
    check_choice(optimizer, OPTIMIZERS, "optimizer")
    if clip_norm < 0:
        raise ValueError(f"clip_norm: {clip_norm} is no length; take 1.0, or 0 for no limit")
    if not 0 <= ema_decay < 1:
        raise ValueError(
            f"ema_decay: {ema_decay} is no share from 0 to below 1; take 0.9999, or 0: none"
        )


def check_rates(*, epochs, rate_decay, rate_every, warmup_epochs, warmup_start, **others):
    """Raise ValueError unless schedule.scheduler makes a schedule of its arguments.

    Those among `others` that are numbers must not be negative.
    """
    check_choice(rate_decay, RATE_DECAYS, "rate_decay")
    check_choice(rate_every, ("epoch", "step"), "rate_every")
    for name, value in (others | {"warmup_start": warmup_start}).items():
        if isinstance(value, int | float) and value < 0:
            raise ValueError(f"{name}: {value} is below 0")
    if not 0 <= warmup_epochs < epochs:
        raise ValueError(
            f"warmup_epochs: {warmup_epochs} leaves nothing of {epochs} epochs; take fewer, or 0"
        )
    if warmup_epochs and not warmup_start and rate_every == "epoch":
        raise ValueError(
            "warmup_start: 0.0 is the rate of the whole first epoch, which then learns nothing; "
            f"take learning_rate / {warmup_epochs + 1}, or rate_every: step"
        )


def check_decay(*, epochs, rate_decay, decay_epochs, learning_rate, final_rate):
    """Raise ValueError unless the rate falls as it is said to, within the epochs.

    A training that is made shorter would else leave drops of the rate out in silence.
    """
    within = sorted({epoch for epoch in decay_epochs if 0 < epoch <= epochs})
    if rate_decay == "steps" and decay_epochs != within:
        raise ValueError(
            f"decay_epochs: {decay_epochs} do not rise within 1 to {epochs}, the epochs; take "
            f"{within}, or all of them in proportion"
        )
    if final_rate > learning_rate:
        raise ValueError(
            f"final_rate: {final_rate} is above learning_rate: {learning_rate}, and the rate would "
            "rise; take a lower one, or 0.0"
        )


def check_choice(value, choices, name):
    if value not in choices:
        raise ValueError(f'{name}: "{value}" is not one of {", ".join(choices)}')


def check_compile(*, replicas, **settings):
    """Raise ValueError for a setting of the optimizer or of `compile` that Keras has wrong.

    Settings that are not known to be wrong pass.
    """
    if settings.get("steps_per_execution", 1) != 1:
        raise ValueError(
            f"steps_per_execution: {settings['steps_per_execution']} fails on several replicas "
            "(keras#19246) and may overshoot the epoch on one; leave it at 1"
        )
    for name, reason in WRONG_ON_REPLICAS.items():
        if replicas > 1 and settings.get(name) not in (None, False, "auto"):
            raise ValueError(
                f"{name}: {settings[name]} on {replicas} replicas {reason}; "
                "leave it out, or train on one"
            )


def check_bands(*, expected_top1, outside_band):
    """Raise ValueError unless each of expected_top1 is [epoch, lowest, highest], shares of 1."""
    check_choice(outside_band, ("warn", "stop"), "outside_band")
    for band in expected_top1:
        try:
            epoch, lowest, highest = band
            right = epoch >= 1 and epoch == int(epoch) and 0 <= lowest <= highest <= 1
        except (TypeError, ValueError):
            right = False
        if not right:
            raise ValueError(
                f"expected_top1: {band} is no [epoch, lowest, highest], such as [90, 0.76, 0.77]"
            )


def check_saving(*, keep_checkpoints, on_save_error):
    """Raise ValueError unless at least one checkpoint is kept, and what to do without is known."""
    if keep_checkpoints < 1:
        raise ValueError(
            f"keep_checkpoints: {keep_checkpoints} leaves nothing to go on from; take 3"
        )
    check_choice(on_save_error, ("stop", "continue"), "on_save_error")
