"""ImageNet's validation images with better labels (ReaL), and other images of the same classes."""

import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from kit.data import folders, paths
from kit.data.images import MAX_FILE_BYTES, prepare_for
from kit.evaluation.scores import accuracy
from kit.files import json_of

VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def read_real(real_labels, *, classes):
    """Read real.json of Beyer et al. 2020, Are we done with ImageNet?

    Its list holds, for ILSVRC2012_val_00000001.JPEG and on, the numbers from 0 of all classes seen
    in the image; none where the annotators did not agree. Raises ValueError for another file.
    """
    path = Path(paths.resolve(real_labels))
    try:
        real = json_of(paths.read_file(str(path), MAX_FILE_BYTES), [[int]])
        good = all(label in range(classes) for labels in real for label in labels)
    except ValueError:
        good = False
    if not good:
        raise ValueError(
            f"real_labels: {path} is no list of lists of classes from 0 to {classes - 1}, one for "
            "each validation image; name ReaL's real.json"
        )
    return real


def score_real(real, files, labels, predictions):
    """Score the predictions against ReaL: {"images", "without_label", "top1"}.

    A prediction is right when it is among the image's ReaL labels; images without any are left
    out. Raises ValueError when the files are not ImageNet's, or when most of their own labels are
    not among ReaL's, which then has the classes in another order.
    """
    numbers = [VALIDATION_NAME.fullmatch(file) for file in files]
    if not all(numbers) or max(int(number[1]) for number in numbers) > len(real):
        raise ValueError(
            f"real_labels: its {len(real)} labels are of ILSVRC2012_val_00000001.JPEG and on, and "
            f"the images are other ones, such as {files[0]}; leave it empty"
        )
    sets = [real[int(number[1]) - 1] for number in numbers]
    labelled = np.array([bool(seen) for seen in sets])
    own, right = (
        np.array([one in seen for one, seen in zip(answers, sets, strict=True)])[labelled]
        for answers in (labels, predictions)
    )
    if not labelled.any() or own.mean() < 0.5:  # nine in ten, in the paper
        raise ValueError(
            f"real_labels: {own.sum()} of {len(own)} images have their own label there: it is of "
            "other classes, or another order; name ReaL's real.json"
        )
    return {"images": len(own), "without_label": int((~labelled).sum()), "top1": accuracy(right)}


def read_folder(folder, *, classes):
    """Find the images of a folder of class folders: a list of (path, label).

    A class folder is named as in training (ImageNet: by wnid) or, as in ImageNet-V2, by its number
    from 0; "10" is 10 there and not what sorts after "1". Raises ValueError for other classes.
    """
    root = paths.resolve(folder)
    skipped = []  # what is no image by its name
    found = {}
    for entry, files in folders.list_classes(root, skipped):
        found.setdefault(folders.class_name(entry.name), []).extend(files)
    label_of = {row["wnid"]: label for label, row in enumerate(classes)}
    if not set(found) <= set(label_of):
        label_of = {name: int(name) for name in found if name.isdecimal()}
        label_of = {name: label for name, label in label_of.items() if label < len(classes)}
    unknown = sorted(set(found) - set(label_of))
    if unknown or not found:
        raise ValueError(
            f"other_images: {root}: {unknown[0] if unknown else 'nothing in it'} is none of the "
            "model's classes; name its folders as in training, or by number from 0"
        )
    return [(file.path, label_of[name]) for name, files in found.items() for file in files]


def encoded_examples(images, metadata):
    """Give each image once, encoded, as kit.pipeline.dataset.encoded_examples does.

    Prepared as the model's own images were, as model.json, `metadata`, states it. An image that
    cannot be read is an error of TensorFlow which names it.
    """
    signature = {"encoded": tf.TensorSpec([], tf.string), "label": tf.TensorSpec([], tf.int64)}

    def read():
        for path, label in images:
            try:
                data = paths.read_file(path, MAX_FILE_BYTES)
                encoded = prepare_for(metadata, data, check="full")
            except ValueError as error:
                raise ValueError(f"{path} cannot be decoded: {error}") from error
            yield {"encoded": encoded, "label": label}

    return tf.data.Dataset.from_generator(read, output_signature=signature)
