"""A trained model and images in, class names with probabilities out.

TensorFlow is imported only for a Keras model and for a SavedModel.
"""

import io
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from kit.data import paths
from kit.data.images import MAX_FILE_BYTES, MAX_PIXELS, prepare_for, read_header
from kit.data.paths import printable
from kit.files import hash_file
from kit.inference import formats
from kit.machine import Room, cores
from kit.model.metadata import SIZES, read_metadata, sizes_of
from kit.pipeline.evaluation_crop import decode_jpeg, evaluation_square, evaluation_window

BATCH = 32  # images at once in the network
DECODED = Room(MAX_PIXELS)  # at once: 0.8 GB at the most, in whatever format
THREADS = 2 * cores()  # that decode: each waits for TensorFlow's own between two images


def load_model(run_dir):
    """Load run_dir/model.keras and model.json: the Keras model and the metadata beside it.

    The metadata holds the SHA-256 of model.keras. Raises FileNotFoundError when either is absent,
    ValueError when model.json does not tell the hash of model.keras (before that is loaded), when
    either cannot be read, or they disagree on the number of classes.
    """
    beside, path = Path(run_dir, "model.json"), Path(run_dir, "model.keras")
    for needed in (beside, path):
        if not needed.is_file():
            raise FileNotFoundError(
                f"{needed} is not there: train a model first (notebook 02), or name another run_dir"
            )
    metadata = read_metadata(beside, SIZES | {"sha256": str})
    found = hash_file(path)
    if metadata["sha256"] != found:
        raise ValueError(
            f"{path} is not the file that model.json beside it tells of (SHA-256 {found[:12]}..., "
            f"not {metadata['sha256'][:12]}...): copy both again, or train again"
        )
    import keras

    from kit.model.foreign_files import UNREADABLE, check_keras

    try:
        check_keras(path)
        model = keras.saving.load_model(path, compile=False)
    except UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} cannot be read as a model, train again: {reason}") from error
    outputs, classes = model.output_shape[-1], len(metadata["classes"])
    if outputs != classes:
        raise ValueError(
            f"{path} has {outputs} classes and model.json beside it {classes}: "
            "they are not of the same training; train again or name another run_dir"
        )
    return model, metadata


class Classifier:
    """A model ready to classify images, on a GPU where there is one, else on a CPU.

    An image may be the encoded bytes of a file, its path, or pixels, uint8 [height, width, 3] or
    [height, width]. It passes through all that a training image does in preparation and evaluation,
    so that the network sees the same pixels: formats other than JPEG, and CMYK, become RGB JPEGs,
    and the image is turned as EXIF says if the model's images were (`apply_orientation`).
    """

    def __init__(self, network, metadata, model=None, square=evaluation_square):
        """Take a network (uint8 [n, size, size, 3] -> float32 probabilities [n, classes], arrays).

        `model` is the Keras model behind it, None for an export; `square` gives of a JPEG what
        evaluation_square does.
        """
        self.forward = network
        self.model = model
        self._square = square
        self.passed = []  # of `fastest`
        self.metadata = metadata
        self.classes = metadata["classes"]
        self.sizes = sizes_of(metadata)

    @classmethod
    def from_model(cls, model, metadata):
        """Take a Keras model that gives logits, and what model.json says of it."""
        import tensorflow as tf

        from kit.model.folding import deployable
        from kit.pipeline.preprocessing import evaluation_pixels

        size = metadata["image_size"]
        compiled = tf.function(
            partial(deployable(model, image_size=size), training=False),
            input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8)],
            autograph=False,
        )
        return cls(lambda pixels: compiled(pixels).numpy(), metadata, model, evaluation_pixels)

    @classmethod
    def from_run_dir(cls, run_dir):
        """Load what notebook 02 left in `run_dir`; errors as in `load_model`."""
        return cls.from_model(*load_model(run_dir))

    @classmethod
    def from_export(cls, path, *, runtime=""):
        """Load an exported file or folder; arguments and errors as in `formats.load`."""
        network = formats.load(path, runtime=runtime)
        return cls(network, network.metadata)

    @classmethod
    def fastest(cls, run_dir):
        """Load what starts soonest of the model in `run_dir`: an export of it, or model.keras.

        Of the exports, the float formats whose runtime is installed; they give the same answers.
        One that cannot be used, such as another model's, is passed over, with a line in `passed`.
        Raises as `load_model` does.
        """
        passed = []
        for path in formats.in_run_dir(run_dir):
            try:
                made = cls.from_export(path)
                formats.check_same_model(made.metadata, run_dir)
                break
            except (ValueError, OSError) as error:
                passed.append(f"{path} is not used: {error}")
        else:
            made = cls.from_run_dir(run_dir)
        made.passed = passed
        return made

    def classify(self, photo, *, top_k=5):
        """List the `top_k` likeliest classes of an image, at most all: (name, probability).

        Of a list or tuple of images, such a list for each. Raises as `image` does, and ValueError
        for a `top_k` under 1.
        """
        check_top_k(top_k)
        if isinstance(photo, list | tuple):
            return [self._named(row, top_k) for row in self.probabilities(photo)]
        return self._named(self.forward(self.image(photo)[np.newaxis])[0], top_k)

    def _named(self, row, top_k):
        return [(self.classes[i]["name"], float(row[i])) for i in likeliest(row, top_k)]

    def probabilities(self, photos):
        """Give float32 [images, classes], each row summing to 1, for a sequence of images."""
        rows = [np.empty([0, len(self.classes)], "float32")]
        named = [(photo, f"image {number}") for number, photo in enumerate(photos)]
        for _, images in decoded_ahead(lambda one: self.image(one[0], name=one[1]), named):
            rows.append(self.forward(np.stack(images)))
        return np.concatenate(rows)

    def image(self, photo, *, name=None):
        """Give what the network sees of an image: uint8 [image_size, image_size, 3].

        Raises ValueError, with the path or `name`, for what cannot be decoded whole, and OSError
        when a file cannot be read.
        """
        return _naming(self.decode, photo, name)

    def whole(self, photo):
        """Give the whole image, uint8 [height, width, 3], and where in it the network looks.

        That is [ymin, xmin, ymax, xmax], shares of its sides. Raises as `image` does.
        """
        pixels = _naming(lambda data: decode_jpeg(prepare_for(self.metadata, data)), photo)
        return pixels, evaluation_window(*pixels.shape[:2], **self.sizes)

    def decode(self, data):
        """Give `image` of encoded bytes; ValueError with the bare reason."""
        header = read_header(data)
        with DECODED.taken(header.height * header.width):
            return self._square(prepare_for(self.metadata, data), **self.sizes)


def decoded_ahead(decode, photos):
    """Give (photos, what `decode` gives of each) for each batch, while two more are in work."""
    photos, batches = iter(photos), deque()
    with ThreadPoolExecutor(THREADS) as pool:
        while batch := list(islice(photos, BATCH)):
            batches.append((batch, pool.map(decode, batch)))
            if len(batches) > 2:
                batch, decoded = batches.popleft()
                yield batch, list(decoded)
        for batch, decoded in batches:
            yield batch, list(decoded)


def encoded(photo):
    """Give an image's encoded bytes: of a path what the file holds, of pixels a BMP of them.

    Raises ValueError for anything else, and for a file too large to be an image; OSError for a file
    that cannot be read.
    """
    if isinstance(photo, bytes):
        return photo
    if isinstance(photo, str | Path):
        return paths.read_file(str(photo), MAX_FILE_BYTES)
    pixels = np.asarray(photo)
    if (
        pixels.dtype != np.uint8
        or (pixels.ndim, *pixels.shape[2:]) not in ((2,), (3, 3))
        or not pixels.size
    ):
        raise ValueError(
            f"an array of {pixels.dtype} {list(pixels.shape)} is no image: give uint8 "
            "[height, width, 3] or [height, width], bytes, or a path"
        )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "BMP")  # nothing is lost, and it costs a copy
    return buffer.getvalue()


def _naming(decode, photo, name=None):
    """Give decode(encoded bytes of the image); a ValueError is made to say of which image."""
    data = encoded(photo)
    try:
        return decode(data)
    except ValueError as error:
        name = printable(photo) if isinstance(photo, str | Path) else name or "the image"
        raise ValueError(
            f"{name} ({len(data):,} bytes) cannot be decoded ({error}); "
            "give a whole JPEG, PNG, WebP or BMP"
        ) from error


def likeliest(probabilities, top_k):
    """Give the class numbers of the `top_k` largest, largest first; of equals the lower first."""
    return np.argsort(-probabilities, kind="stable")[:top_k].tolist()


def check_top_k(top_k):
    """Raise ValueError for a `top_k` under 1."""
    if top_k < 1:
        raise ValueError(f"top_k: {top_k} names no class; give 1 or more")
