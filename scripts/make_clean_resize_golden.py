"""Writes tests/golden/clean_resize.json: small images given by a formula, resized by Pillow.

    python scripts/make_clean_resize_golden.py

The filter is BICUBIC in mode "F", as in clean-fid's "clean" resizing for Inception.
"""

import json
import pathlib

import numpy as np
from PIL import Image

CASES = [(9, 9, 16), (17, 23, 11), (32, 32, 32), (40, 13, 24), (64, 48, 7), (5, 5, 1), (2, 3, 9)]


def pattern(height, width):
    y, x = np.mgrid[:height, :width]
    return ((37 * y + 91 * x + 11 * x * y) % 256).astype(np.float32)


def main():
    cases = []
    for height, width, size in CASES:
        made = np.asarray(
            Image.fromarray(pattern(height, width)).resize((size, size), Image.BICUBIC)
        ).clip(0, 255)
        cases.append(
            {
                "height": height,
                "width": width,
                "size": size,
                "levels": [round(float(v), 4) for v in made.ravel()],
            }
        )
    path = pathlib.Path(__file__).parent.parent / "tests" / "golden" / "clean_resize.json"
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
