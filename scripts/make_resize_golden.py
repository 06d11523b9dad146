"""Writes tests/golden/resize.json: small images resized by Pillow, which tests/core/resize_test.cpp
compares byte for byte.

    python scripts/make_resize_golden.py        (needs Pillow and numpy)

Rows are resized first, then columns. Pillow does so for all squares; for some other sizes Pillow 13
reverses the order when that is less work, which may differ by one. Pixel (y, x, c) of an input is
(37 y + 91 x + 11 x y + 53 c) % 256, so the inputs need not be stored.
"""

import json
import pathlib

import numpy as np
from PIL import Image

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "triangle": Image.Resampling.BILINEAR,
}
SIZES = [  # height, width, channels, new height, new width
    (6, 6, 1, 3, 3),
    (6, 6, 1, 4, 4),
    (6, 6, 1, 8, 8),
    (7, 5, 3, 3, 4),
    (40, 31, 1, 5, 7),
    (64, 64, 3, 8, 8),
    (9, 13, 1, 9, 6),
    (13, 9, 1, 6, 9),
    (2, 3, 3, 7, 5),
    (1, 1, 3, 3, 3),
    (200, 150, 1, 3, 2),
]


def pattern(height, width, channels):
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    return ((37 * y + 91 * x + 11 * x * y + 53 * c) % 256).astype(np.uint8)


cases = []
for height, width, channels, new_height, new_width in SIZES:
    pixels = pattern(height, width, channels)
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    for name, method in FILTERS.items():
        made = np.asarray(
            image.resize((new_width, height), method).resize((new_width, new_height), method)
        )
        cases.append(
            {
                "from": [height, width, channels],
                "to": [new_height, new_width],
                "filter": name,
                "pixels": made.ravel().tolist(),
            }
        )
path = pathlib.Path(__file__).parent.parent / "tests/golden/resize.json"
path.write_text(
    "[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n"
)
