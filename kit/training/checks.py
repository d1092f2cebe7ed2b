"""What can be known wrong before any device is touched; `python -m kit run` asks it first."""

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


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
