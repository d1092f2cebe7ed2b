"""Makes the demonstration set: views of ten photographs, laid out as extracted ImageNet.

The photographs are part of the scikit-image package, so nothing is downloaded. Training and
validation views show the same ten objects. To tell them apart is instance recognition: a check
of the code, and no benchmark.
"""

import io
import math
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from kit import ROOT
from kit.files import naming_full_disk, read_json, write_json
from kit.locks import holding
from kit.prep.imagenet import LABELS_FILE, NAMES_FILE

MARKER = "demo.json"
PHOTOGRAPH_SIDE = 300  # pixels, of the short side: a view then never shrinks it twofold
VIEW_SIDE = (144, 176)  # pixels, of the short side
LARGEST_ANGLE = math.radians(10)

# Three files in the formats that a few of ImageNet's have, by the number of their training view.
OTHER_FORMATS = {16: "grey JPEG", 22: "CMYK JPEG", 35: "PNG"}


class Photograph(NamedTuple):
    """One class: its function in skimage.data, and where the object lies in the photograph."""

    function: str
    name: str
    shape: str  # "rectangle" or "ellipse", that fills the box
    box: tuple[float, float, float, float]  # ymin, xmin, ymax, xmax


# Boxes were drawn by hand on the photographs; a texture fills its photograph.
PHOTOGRAPHS = (
    Photograph("astronaut", "astronaut", "rectangle", (0.02, 0.04, 1.0, 0.72)),
    Photograph("chelsea", "cat", "rectangle", (0.0, 0.03, 1.0, 0.85)),
    Photograph("coffee", "coffee", "ellipse", (0.03, 0.12, 0.98, 0.81)),
    Photograph("rocket", "rocket", "rectangle", (0.30, 0.47, 0.95, 0.53)),
    Photograph("hubble_deep_field", "galaxies", "rectangle", (0.0, 0.0, 1.0, 1.0)),
    Photograph("retina", "retina", "ellipse", (0.005, 0.005, 0.995, 0.995)),
    Photograph("brick", "brick", "rectangle", (0.0, 0.0, 1.0, 1.0)),
    Photograph("grass", "grass", "rectangle", (0.0, 0.0, 1.0, 1.0)),
    Photograph("gravel", "gravel", "rectangle", (0.0, 0.0, 1.0, 1.0)),
    Photograph("immunohistochemistry", "tissue", "rectangle", (0.0, 0.0, 1.0, 1.0)),
)
WNIDS = tuple(f"n9{number:07d}" for number in range(1, len(PHOTOGRAPHS) + 1))


def make_demo(*, raw_dir, demo_views, seed) -> None:
    """Make `demo_views` training and a fifth as many validation views in raw_dir.

    Does nothing where the same set is there already. The set appears by the rename of its folder.
    Raises ValueError when raw_dir holds anything else.
    """
    target = ROOT / raw_dir
    wanted = {"demo_views": demo_views, "seed": seed}
    lock = target.with_name(f".{target.name}.lock")
    if _is_made(target, wanted):
        return
    with holding(lock, f"raw_dir {target} is being made"):
        if not _is_made(target, wanted):  # by another process, since
            with naming_full_disk(target):
                _make(target, wanted)


def _make(target: Path, wanted: dict) -> None:
    demo_views, seed = wanted.values()
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink() if partial.is_symlink() else shutil.rmtree(partial, ignore_errors=True)
    for folder in ("train", "validation", "bounding_boxes"):
        (partial / folder).mkdir(parents=True)
    names = (f"{wnid}\t{photo.name}\n" for wnid, photo in zip(WNIDS, PHOTOGRAPHS, strict=True))
    (partial / NAMES_FILE).write_text("".join(names))
    scenes = [_load_scene(photograph) for photograph in PHOTOGRAPHS]
    _write_train(partial, scenes, demo_views, seed)
    _write_validation(partial, scenes, demo_views // 5, seed)
    write_json(partial / MARKER, wanted)
    if target.exists():
        target.rmdir()  # it is empty, or _is_made had raised an error
    partial.replace(target)


def _is_made(target: Path, wanted: dict) -> bool:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    marker = target / MARKER
    if not marker.is_file():
        raise ValueError(
            f"raw_dir {target} holds something other than a demonstration set: name another "
            "folder, or set demo_views to 0 to read this one"
        )
    remedy = f"delete {target} or name another raw_dir"
    found = read_json(marker, dict.fromkeys(wanted, int), remedy=remedy)
    if found != wanted:
        raise ValueError(
            f"raw_dir {target} holds the demonstration set {found}, not {wanted}: delete it or "
            "name another folder"
        )
    return True


def _load_scene(photograph: Photograph) -> tuple[Image.Image, Image.Image]:
    """Load the photograph (RGB, short side 300 pixels) and the mask of its object (0 or 255)."""
    try:
        from skimage import data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the demonstration set needs scikit-image: pip install 'scikit-image==0.25.*'"
        ) from error
    picture = Image.fromarray(getattr(data, photograph.function)()).convert("RGB")
    shrink = PHOTOGRAPH_SIDE / min(picture.size)
    picture = picture.resize([round(side * shrink) for side in picture.size], Image.LANCZOS)
    ymin, xmin, ymax, xmax = photograph.box
    width, height = picture.size
    mask = Image.new("L", picture.size)
    corners = (xmin * width, ymin * height, xmax * width - 1, ymax * height - 1)
    getattr(ImageDraw.Draw(mask), photograph.shape)(corners, fill=255)
    return picture, mask


def _write_train(root: Path, scenes, views: int, seed: int) -> None:
    for wnid in WNIDS:
        (root / "train" / wnid).mkdir()
        (root / "bounding_boxes" / wnid).mkdir()
    for number in range(views):
        label = number % len(scenes)
        view, box, rng = _draw_view(scenes[label], [seed, 0, number])
        wnid = WNIDS[label]
        stem = f"{wnid}_{number}"
        encoded = _encode(view, rng, OTHER_FORMATS.get(number, ""))
        (root / "train" / wnid / f"{stem}.JPEG").write_bytes(encoded)
        xml = _box_xml(wnid, stem, view.size, box)
        (root / "bounding_boxes" / wnid / f"{stem}.xml").write_text(xml)


def _write_validation(root: Path, scenes, views: int, seed: int) -> None:
    """Write the flat validation folder in random order, and the file of its labels."""
    labels = np.random.default_rng([seed, 1]).permutation(views) % len(scenes)
    for number, label in enumerate(labels):
        view, _, rng = _draw_view(scenes[label], [seed, 1, number])
        name = f"ILSVRC2012_val_{number + 1:08d}.JPEG"
        (root / "validation" / name).write_bytes(_encode(view, rng, ""))
    (root / LABELS_FILE).write_text("".join(f"{WNIDS[label]}\n" for label in labels))


def _draw_view(scene, seeds: list[int]):
    """Draw one view: its image, the box (left, top, right, bottom) in pixels, its random source.

    A view must show a third of the object, or be half filled by it; else it is drawn again.
    """
    picture, mask = scene
    rng = np.random.default_rng(seeds)
    while True:
        size, matrix = _draw_frame(picture.size, rng)
        seen = mask.transform(size, Image.AFFINE, matrix, Image.NEAREST)
        pixels = seen.histogram()[255]
        zoom = abs(matrix[0] * matrix[4] - matrix[1] * matrix[3])  # photograph's per view's pixel
        if pixels * zoom > mask.histogram()[255] / 3 or pixels > size[0] * size[1] / 2:
            break
    view = picture.transform(size, Image.AFFINE, matrix, Image.BICUBIC)
    return _relight(view, rng), seen.getbbox(), rng


def _draw_frame(size: tuple[int, int], rng):
    """Draw a view's position: its (width, height), and Pillow's matrix from view to photograph.

    The rotated frame is wholly inside the photograph, so that no pixel is made up.
    """
    short = int(rng.integers(*VIEW_SIDE, endpoint=True))
    long = round(short * rng.uniform(1, 4 / 3))
    width, height = (long, short) if rng.random() < 0.5 else (short, long)
    angle = rng.uniform(-LARGEST_ANGLE, LARGEST_ANGLE)
    cosine, sine = math.cos(angle), math.sin(angle)
    reach_x = width * cosine + height * abs(sine)
    reach_y = width * abs(sine) + height * cosine
    scale = min(size[0] / reach_x, size[1] / reach_y) * rng.uniform(0.6, 1)
    centre_x = rng.uniform(scale * reach_x / 2, size[0] - scale * reach_x / 2)
    centre_y = rng.uniform(scale * reach_y / 2, size[1] - scale * reach_y / 2)
    a, b, d, e = scale * cosine, -scale * sine, scale * sine, scale * cosine
    left = centre_x - a * width / 2 - b * height / 2
    top = centre_y - d * width / 2 - e * height / 2
    return (width, height), (a, b, left, d, e, top)


def _relight(view: Image.Image, rng) -> Image.Image:
    gains = rng.uniform(0.7, 1.3) * rng.uniform(0.9, 1.1, size=3)
    tables = [np.clip(np.arange(256) * gain, 0, 255).astype(int).tolist() for gain in gains]
    return view.point(sum(tables, []))


def _encode(view: Image.Image, rng, form: str) -> bytes:
    buffer = io.BytesIO()
    quality = int(rng.integers(75, 95, endpoint=True))
    mode = {"grey JPEG": "L", "CMYK JPEG": "CMYK"}.get(form, "RGB")
    view.convert(mode).save(buffer, "PNG" if form == "PNG" else "JPEG", quality=quality)
    return buffer.getvalue()


def _box_xml(wnid: str, stem: str, size: tuple[int, int], box: tuple[int, ...]) -> str:
    xmin, ymin, xmax, ymax = box
    return f"""<annotation>
  <folder>{wnid}</folder>
  <filename>{stem}</filename>
  <size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>
  <object>
    <name>{wnid}</name>
    <bndbox>
      <xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>
    </bndbox>
  </object>
</annotation>
"""
