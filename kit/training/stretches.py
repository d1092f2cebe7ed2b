"""A training in parts, each of which one call of Keras' fit can train."""


def stretches(step, *, epochs, steps_per_epoch, training_sizes):
    """List what is left of a training after `step`: the rest of an epoch, then the others by size.

    A part is (its first step, that step's epoch, the epoch before which it ends, image size).
    `training_sizes` lists [epoch, pixels], the size from that epoch on, all counted from 0; before
    the first of them the size is None.
    """
    epoch, done = divmod(step, steps_per_epoch)
    ends = [first for first, _ in training_sizes] + [epochs] + [epoch + 1] * bool(done)
    parts = []
    for end in sorted(ends):
        if epoch < end <= epochs:
            sizes = [None] + [pixels for first, pixels in training_sizes if first <= epoch]
            parts.append((step, epoch, end, sizes[-1]))
            step, epoch = end * steps_per_epoch, end
    return parts
