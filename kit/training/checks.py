"""What can be known wrong before any device is touched; `python -m kit run` asks it first."""

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
WRONG_ON_REPLICAS = {  # argument of Keras' optimizers or of compile: what it does there
    "clipnorm": "clips each replica's gradient before their sum",
    "global_clipnorm": "clips each replica's gradient before their sum",
    "clipvalue": "clips each replica's gradient before their sum",
    "gradient_accumulation_steps": "fails in the first step",
    "ema_overwrite_frequency": "fails in the first step; take keras.callbacks.SwapEMAWeights",
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
    if precision not in PRECISIONS:
        raise ValueError(f'precision: "{precision}" is not one of {", ".join(PRECISIONS)}')
    if precision == "mixed_float16" and replicas > 1:
        raise ValueError(
            "precision: mixed_float16 on several replicas checks only the first for overflow "
            "(keras#18666); take mixed_bfloat16 or float32"
        )


def check_sizes(*, image_size, resize_side):
    """Raise ValueError unless the centre crop fits into the resized image, both in pixels."""
    if image_size < 32:
        raise ValueError(
            f"image_size: {image_size} leaves nothing after five halvings; take 32 or more"
        )
    if image_size > resize_side:
        raise ValueError(
            f"image_size: {image_size} is larger than resize_side: {resize_side}; for the centre "
            f"crop to fit, take a resize_side of about {round(image_size * 256 / 224)}"
        )


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
    if outside_band not in ("warn", "stop"):
        raise ValueError(f'outside_band: "{outside_band}" is not one of warn, stop')
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
    if on_save_error not in ("stop", "continue"):
        raise ValueError(f'on_save_error: "{on_save_error}" is not one of stop, continue')
