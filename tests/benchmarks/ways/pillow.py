"""The same crop, resize, flip and mean with Pillow: in processes, or under PyTorch's DataLoader.

Imports no TensorFlow: every worker imports this module.
"""

import importlib.util
import itertools
from collections import deque

import numpy as np
from PIL import Image

MEANS = np.float32([123.68, 116.779, 103.939])
BATCH = 20  # small, so that a turn of two seconds holds many


class Photographs:
    """Photographs by number, as PyTorch wants a data set: float32 [size, size, 3], mean off."""

    def __init__(self, paths, windows, flips, size):
        self.paths, self.windows, self.flips, self.size = paths, windows, flips, size

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        top, left, height, width = self.windows[number]
        with Image.open(self.paths[number]) as picture:
            picture = picture.convert("RGB")
        box = (left, top, left + width, top + height)
        picture = picture.resize((self.size, self.size), Image.BILINEAR, box)
        if self.flips[number]:
            picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
        return np.asarray(picture, np.float32) - MEANS

    def cut(self, number):
        """Give the photographs in parts of this many."""
        for start in range(0, len(self), number):
            part = slice(start, start + number)
            yield Photographs(self.paths[part], self.windows[part], self.flips[part], self.size)


def make(photographs) -> int:
    """Make a batch and leave it where it is made: handing it over is not counted."""
    return len(np.stack([photographs[number] for number in range(len(photographs))]))


def processes(pool, count, photographs):
    """Give, without end, how many images one of the pool's processes has made."""
    batches = itertools.cycle(photographs.cut(BATCH))
    waiting = deque()
    try:
        while True:
            while len(waiting) < 2 * count:
                waiting.append(pool.submit(make, next(batches)))
            yield waiting.popleft().result()
    finally:  # leave the processes idle
        for future in waiting:
            future.cancelled() or future.cancel() or future.result()


def has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def torch_loader(photographs, *, workers):
    """Give PyTorch's DataLoader; its workers are started once and wait between two passes."""
    from torch.utils.data import DataLoader

    return DataLoader(
        photographs,
        batch_size=BATCH,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="spawn",  # a fork of a process with TensorFlow's threads may hang
    )


def torch_batches(loader):
    """Give, without end, the images of each batch of the loader."""
    while True:
        for images in loader:
            yield len(images)
