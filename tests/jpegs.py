"""JPEGs put together by hand, of kinds that no library writes: odd samplings, many scans."""

import struct

ONES = b"\0" + bytes([1] * 64)  # a table of quantisation


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def frame(marker: int, height: int, width: int, samplings) -> bytes:
    """Give a start of frame; samplings: (across, down) of each component, from 1 to 4."""
    parts = (bytes([at + 1, 16 * h + v, 0]) for at, (h, v) in enumerate(samplings))
    head = struct.pack(">BHHB", 8, height, width, len(samplings))
    return segment(marker, head + b"".join(parts))


def tables(last: int) -> bytes:
    """Give Huffman tables in which a zero bit is no difference, and the symbol `last`."""
    one_code = bytes([1] + [0] * 15)
    return segment(0xC4, b"\0" + one_code + b"\0") + segment(
        0xC4, b"\x10" + one_code + bytes([last])
    )


def grey_blocks(height=24, width=40, samplings=((1, 1),) * 3, marker=0xC0) -> bytes:
    """Give a mid-grey JPEG whose components are sampled so."""
    across, down = (max(of) for of in zip(*samplings, strict=True))
    units = -(-width // (8 * across)) * -(-height // (8 * down))
    bits = units * 2 * sum(h * v for h, v in samplings)
    names = b"".join(bytes([at + 1, 0]) for at in range(len(samplings)))
    scan = segment(0xDA, bytes([len(samplings)]) + names + bytes([0, 63, 0]))
    head = b"\xff\xd8" + segment(0xDB, ONES) + frame(marker, height, width, samplings)
    return head + tables(0) + scan + bytes(bits // 8 + 1) + b"\xff\xd9"


def many_scans(height: int, width: int, scans: int) -> bytes:
    """Give a small file of a progressive JPEG; each scan after the first says nothing, slowly."""
    blocks = -(-height // 8) * -(-width // 8)
    runs = "".join("0" + "1" * 14 for _ in range(blocks // 32767)) + "0" + "0" * 14
    runs += "1" * (-len(runs) % 8)  # 2^14 blocks and so many more end here
    coded = int(runs, 2).to_bytes(len(runs) // 8, "big").replace(b"\xff", b"\xff\0")
    head = b"\xff\xd8" + segment(0xDB, ONES) + frame(0xC2, height, width, [(1, 1)]) + tables(0xE0)
    first = segment(0xDA, b"\1\1\0\0\0\0") + bytes(blocks // 8 + 1)
    again = segment(0xDA, b"\1\1\0\1\x3f\0") + coded
    return head + first + again * (scans - 1) + b"\xff\xd9"
