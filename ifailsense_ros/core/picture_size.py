"""How large a JPEG or PNG says it is, read before a decoder allocates that much.

One flipped bit in a header, or in the length of a chunk, makes OpenCV ask for gigabytes and stall
for half a minute: on a robot that is the whole episode.
"""

from __future__ import annotations

MAX_PIXELS = 1 << 26
"""More than any camera or strip of keyframes: 8192 x 8192."""


def why_not_decodable(data: bytes | memoryview) -> str:
    """Why decoding would take more memory than a picture needs; "" if it would not.

    Args:
        data: the content of a JPEG or PNG file; anything else gives "".
    """
    data = memoryview(data)
    width = height = 0
    if data[:4] == b"\x89PNG":
        width, height = _number(data[16:20]), _number(data[20:24])
        at = 8
        while at + 8 <= len(data):
            length = _number(data[at : at + 4])
            if at + 12 + length > len(data):
                return f"truncated or damaged, a chunk of {length} bytes in {len(data)}"
            if data[at + 4 : at + 8] == b"IEND":
                break  # some writers pad behind it
            at += 12 + length
    elif data[:2] == b"\xff\xd8":
        at = 2
        while at + 9 <= len(data) and data[at] == 0xFF:
            # Start-of-frame segments: C0 to CF without tables (C4, C8, CC).
            if 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC):
                height, width = _number(data[at + 5 : at + 7]), _number(data[at + 7 : at + 9])
                break
            at += 2 + _number(data[at + 2 : at + 4])
    return f"says it is {width}x{height} pixels" if width * height > MAX_PIXELS else ""


def _number(field: memoryview) -> int:
    return int.from_bytes(field, "big")
