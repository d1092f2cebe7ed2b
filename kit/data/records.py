"""Parses the tf.train.Example records of shards."""

import tensorflow as tf

LABEL_OFFSET = 1  # labels count from 1 on disk and from 0 in code


def parse_example(serialized) -> dict:
    """Read one serialized Example in a TensorFlow graph, or eagerly.

    Returns "encoded" and "filename" (scalar strings), "label" (int64 scalar, from 0) and
    "boxes" (float32 [n, 4]: ymin, xmin, ymax, xmax in [0, 1]; n may be 0).
    """
    sides = [f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax")]
    numbers = tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True)
    found = tf.io.parse_single_example(
        serialized,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/class/label": tf.io.FixedLenFeature([], tf.int64),
            "image/filename": tf.io.FixedLenFeature([], tf.string, default_value=""),
            **dict.fromkeys(sides, numbers),
        },
    )
    return {
        "encoded": found["image/encoded"],
        "label": found["image/class/label"] - LABEL_OFFSET,
        "boxes": tf.stack([found[side] for side in sides], axis=-1),
        "filename": found["image/filename"],
    }
