"""Read model.json and the metadata of exports: classes, sizes, hashes."""

from kit.files import check_form, check_seal, hash_file, read_json

SIZES = {"classes": [{"wnid": str, "name": str}], "image_size": int, "resize_side": int}
RESIZE = ("resize_side", "antialias")  # keys that say how evaluation resizes
RENAMED = {  # keys and parameters of models that older kits have trained
    "version": "resnet_version",
    "test_size": "evaluation_size",
    "rate_decay": "schedule",
    "rate_every": "schedule_update",
    "learning_rate_batch": "base_batch_size",
    "clip_norm": "clip_grad_norm",
    "final_rate": "final_learning_rate",
    "warmup_start": "warmup_learning_rate",
    "mended": "reencoded",
}
MAX_SIDE = 2**13  # pixels


def read_metadata(path, needed=SIZES, remedy="train again") -> dict:
    """Read a file of metadata that holds `needed`, {key: form} as in files.check_form.

    Raises ValueError, with the remedy, when it cannot be read or was edited, lacks one of them, or
    has a centre crop that does not fit into the resized image.
    """
    metadata = read_json(path, remedy=remedy)
    renamed = _renamed(metadata)
    if missing := [key for key in needed if key not in renamed]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: {remedy}")
    try:
        check_seal(metadata)
        check_form(renamed, needed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; copy it again, or {remedy}") from None
    metadata = renamed
    image_size, resize_side = metadata.get("image_size", 0), metadata.get("resize_side", 0)
    if "resize_side" in needed and not 0 < image_size <= resize_side <= MAX_SIDE:
        wrong = f"resize_side {resize_side}, under image_size {image_size}"
        if image_size <= resize_side:
            wrong = f"image_size {image_size}, resize_side {resize_side}, not of 1 to {MAX_SIDE}"
        raise ValueError(f"{path} has {wrong}: {remedy}")
    return metadata


def sizes_of(metadata) -> dict:
    """Give what `evaluation_image` takes for this model; an older one states no antialias."""
    sizes = {name: metadata[name] for name in ("image_size", "resize_side")}
    return sizes | {"antialias": metadata.get("antialias", False)}


def other_classes(path, names) -> str:
    """Say how the classes of a .keras file differ from `names`; "" where nothing tells that.

    The model.json beside the file names its classes. Raises ValueError when it cannot be read, or
    was edited.
    """
    beside = path.with_name("model.json")
    if path.suffix != ".keras" or not names or not beside.is_file():
        return ""
    metadata = read_metadata(beside, {"classes": SIZES["classes"]}, "delete it")
    if metadata.get("sha256", found := hash_file(path)) != found:
        return ""  # it tells of another file
    pairs = zip((row["name"] for row in metadata["classes"]), names, strict=True)
    different = (f"its classes are others: {a!r} there is {b!r} here" for a, b in pairs if a != b)
    return next(different, "")


def _renamed(values):
    """Give the metadata with today's keys; `parameters` and `data` hold others."""
    return {
        RENAMED.get(key, key): _renamed(value) if isinstance(value, dict) else value
        for key, value in values.items()
    }
