"""JPEG headers, read marker by marker: size, components and scans. Nothing is decoded."""

import re
import struct
from typing import NamedTuple

MAX_SCANS = 50  # of one image; progressive ones usually have ten, and each is a pass over all of it

# ITU-T T.81, table B.1: the markers that state a JPEG's size, and those that stand alone.
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
DECODED = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # baseline, extended, progressive; the latter arithmetic
PROGRESSIVE = (0xC2, 0xCA)
ALONE = frozenset((0x01, *range(0xD0, 0xD9)))
END, SCAN = 0xD9, 0xDA
MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)  # that ends coded data


class Frame(NamedTuple):
    height: int
    width: int
    components: int  # 1 grey, 3 RGB or YCbCr, 4 CMYK or YCCK
    progressive: bool


def read_frame(data: bytes) -> Frame:
    """Walk from marker to marker to the first scan: ITU-T T.81, B.1 and B.2.

    Raises ValueError for what states no size, for a kind of JPEG that TensorFlow does not decode,
    such as a lossless one, and for more than MAX_SCANS.
    """
    frame, at = None, 2
    while at + 5 <= len(data) and data[at] == 0xFF and data[at + 1] != END:
        marker = data[at + 1]
        if marker == SCAN:
            if frame and (frame.progressive or data[at + 4] != frame.components):
                _check_scans(data, at)
            break
        if marker in START_OF_FRAME and at + 10 <= len(data):
            frame = _read_frame(data, at)
        at += 1 if marker == 0xFF else 2  # a fill byte
        if marker != 0xFF and marker not in ALONE:
            at += int.from_bytes(data[at : at + 2], "big")
    if not frame:
        raise ValueError("not an image: a JPEG that states no size")
    return frame


def _read_frame(data: bytes, at: int) -> Frame:
    marker = data[at + 1]
    bits, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
    if bits != 8 or not height or not width:
        raise ValueError(f"a JPEG of {width} x {height} pixels of {bits} bits")
    if marker not in DECODED:
        kind = "lossless" if marker in (0xC3, 0xCB) else "hierarchical or differential"
        raise ValueError(f"a {kind} JPEG (SOF{marker - 0xC0}), which TensorFlow does not decode")
    return Frame(height, width, components, marker in PROGRESSIVE)


def _check_scans(data: bytes, at: int) -> None:
    """Raise ValueError for more than MAX_SCANS from offset `at` to the end of the image."""
    scans = 0
    while (found := MARKER.search(data, at)) and data[found.end() - 1] != END:
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
        scans += data[found.end() - 1] == SCAN
        if scans > MAX_SCANS:
            raise ValueError(f"a JPEG of more than {MAX_SCANS} scans")
