"""Draw what augmentation does to the demonstration's images: draw.py DATA_DIR.

operations.png: the operations of rand_augment at magnitude 7, and a rectangle painted over.
mixing.png: a batch of six under mixup and under cutmix.
"""

import sys

import numpy as np
import tensorflow as tf

from kit import ROOT, plots
from kit.data import manifest
from kit.pipeline import augment, dataset, mixing, preprocessing
from kit.pipeline.sections import Mixing

SIZE = 112
FILL = (124, 117, 104)
BATCHES = {"mixup": (0.2, 0.0, 26), "cutmix": (0.0, 1.0, 4)}  # alphas, and a seed of much mixing


def main(data_dir):
    examples = one_of_each_class(data_dir)
    title = "Each operation of rand_augment at magnitude 7, and random erasing"
    save("operations", title, *changed(examples[0]))
    save("mixing", "A batch of six images, mixed", *mixed(examples[:6]))


def save(name, title, images, captions):
    figure = plots.image_grid(images, captions, columns=6, title=title)
    figure.set_size_inches(0.7 * figure.get_size_inches())  # below a megabyte
    plots.save(figure, ROOT, f"augmentation/{name}")


def one_of_each_class(data_dir):
    found = {}
    for example in dataset.encoded_examples(data_dir=data_dir, split="validation"):
        size = {"image_size": SIZE, "resize_side": SIZE * 256 // 224}
        found[int(example["label"])] = preprocessing.evaluation_image(example["encoded"], **size)
    return [found[label] for label in range(len(manifest.class_names(data_dir)))]


def changed(image):
    """Give the image, and what each operation makes of it, with their names."""
    images, captions = [image.numpy()], ["the image"]
    pixels = tf.cast(image, tf.float32)
    for operation, *how in augment.rand_operations(0.7, 1.0, fill=FILL, shape=image.shape):
        images.append(operation(pixels, *how).numpy())
        captions.append(operation.__name__)
    images.append(augment.erased(image, [0, 2], share=1.0, fill=FILL).numpy())
    return images, [*captions, "random_erasing"]


def mixed(examples):
    """Give the images of each mixed batch, with the share of each that is its own."""
    images, captions = [], []
    for name, (mixup, cutmix, seed) in BATCHES.items():
        how = Mixing(mixup, cutmix, repeated_augmentation=1)
        batch, labels = mixing.mixed(tf.stack(examples), tf.range(6), [0, seed], how, classes=6)
        images += list(batch.numpy())
        captions += [f"{name}, {own:.0%} own" for own in np.diag(labels)]
    return images, captions


if __name__ == "__main__":
    main(sys.argv[1])
