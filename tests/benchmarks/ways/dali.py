"""The same crop, resize, flip and mean with NVIDIA DALI on the CPU."""

import importlib.util
import itertools

import numpy as np

from ways.pillow import MEANS

BATCH = 100


def installed() -> bool:
    nvidia = importlib.util.find_spec("nvidia")  # other packages live there too
    return nvidia is not None and importlib.util.find_spec("nvidia.dali") is not None


def pipeline(photographs, *, threads):
    """Give a built pipeline: its `run()` gives float32 [BATCH, size, size, 3], the mean off."""
    from nvidia.dali import fn, pipeline_def, types

    def windows():
        for start in itertools.count(step=BATCH):
            batch = [(start + number) % len(photographs) for number in range(BATCH)]
            chosen = photographs.windows[batch]
            flips = [np.int32(photographs.flips[number]) for number in batch]
            yield list(chosen[:, :2]), list(chosen[:, 2:]), flips

    @pipeline_def(batch_size=BATCH, num_threads=threads, device_id=None)
    def build():
        images, _ = fn.readers.file(files=[str(path) for path in photographs.paths])
        start, shape, mirror = fn.external_source(source=windows(), num_outputs=3, batch=True)
        images = fn.decoders.image_slice(images, start=start, shape=shape, axes=[0, 1])
        size = [photographs.size, photographs.size]
        images = fn.resize(images, size=size, interp_type=types.INTERP_LINEAR, antialias=False)
        return fn.crop_mirror_normalize(
            images,
            mean=MEANS.tolist(),
            std=[1.0, 1.0, 1.0],
            mirror=mirror,
            output_layout="HWC",
        )

    built = build()
    built.build()
    return built


def batches(photographs, *, threads):
    """Give, without end, the number of images in each batch."""
    built = pipeline(photographs, threads=threads)
    while True:
        built.run()
        yield BATCH


def first_batch(photographs) -> np.ndarray:
    (images,) = pipeline(photographs, threads=1).run()
    return images.as_array()
