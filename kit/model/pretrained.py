"""Pretrained weights by one word: fetched once into Keras' cache, and checked."""

import hashlib
import socket
from contextlib import contextmanager
from pathlib import Path

import keras
from keras.src.backend.config import keras_home

from kit import ROOT, params
from kit.files import hash_file, replacing
from kit.model.metadata import RESIZE
from kit.model.resnet import resnet50
from kit.model.sections import PRETRAINED
from kit.model.weights import read_into

SILENCE = 60  # seconds without a byte, after which a download has failed
# the WordNet synsets of ImageNet's 1,000 classes, in the logits' order, and torchvision's names
CLASSES = Path(__file__).parent / "imagenet_classes.tsv"


def fetch(weights):
    """Return the file of `initial_weights`: of a name of PRETRAINED the one in the cache.

    It is downloaded with a progress bar when it is not there. Raises OSError when it cannot be,
    ValueError when its hash is another, each with what to do; the cache then has no such file.
    """
    if weights not in PRETRAINED:
        return ROOT / weights
    return cached(PRETRAINED[weights].url, PRETRAINED[weights].digest)


def load(name):
    """Return (model, metadata) of weights for ImageNet's 1,000 classes, as after a training.

    The model gives logits of 224 x 224 pixels; the metadata is what model.json would hold, with the
    resize of the published accuracy. `name` is of PRETRAINED; ValueError for another. Raises as
    `fetch` does, too.
    """
    network = params.load(overrides={"initial_weights": name}).network
    if name not in PRETRAINED:
        raise ValueError(f"{name!r} is no name of weights; there are: {', '.join(PRETRAINED)}")
    path = fetch(name)
    model = resnet50(network, classes=1000)
    read_into(model, path)
    named = [line.split("\t") for line in CLASSES.read_text(encoding="utf-8").splitlines()]
    return model, {
        "classes": [{"wnid": wnid, "name": name} for wnid, name in named],
        "image_size": 224,
        **dict(zip(RESIZE, PRETRAINED[name].resize, strict=True)),
        "sha256": hash_file(path),
    }


def cached(url, digest):
    """Return the file of a URL in Keras' cache, its hash compared; raises as `fetch` does."""
    path = Path(keras_home(), "models", url.rpartition("/")[2])
    if not path.exists():
        download(url, digest, path)
    check(path, digest, "delete it, and it is fetched again")
    return path


def download(url, digest, path):
    """Write the file of a URL to `path`, whole and of this hash or not at all."""
    place = f"or put the file at {path}"
    with replacing(path) as temporary:
        try:
            with timeout(SILENCE):
                keras.utils.get_file(
                    temporary.name,
                    url,
                    cache_dir=temporary.parent,
                    cache_subdir="",
                    force_download=True,  # the temporary file is there, and empty
                )
        except Exception as error:  # Keras raises bare ones
            reason = (
                str(error).removeprefix(f"URL fetch failure on {url}: ").removeprefix("None -- ")
            )
            raise OSError(f"{url} cannot be fetched ({reason}): try again, {place}") from None
        check(temporary, digest, f"try again, {place}", url)


def check(path, digest, remedy, name=None):
    """Raise ValueError unless the file's MD5 is `digest`, or its SHA-256 begins so."""
    if len(digest) == 32:
        found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    else:
        found = hash_file(path)
    if not found.startswith(digest):
        raise ValueError(
            f"{name or path} is not the file that was published: its hash is "
            f"{found[: len(digest)]}, not {digest}; {remedy}"
        )


@contextmanager
def timeout(seconds):
    """Within the block, new sockets fail after so many seconds without an answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
