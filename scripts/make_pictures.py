#!/usr/bin/env python3
"""Draws small labelled images for experiments (docs/tutorial.md): eight kinds of objects in varying
sizes, positions and colours.

    python3 scripts/make_pictures.py pictures    # pictures/{train,test}/<kind>/*.png

The images are the same on every machine. Needs only the standard library.
"""

import argparse
import pathlib
import random
import struct
import zlib

RED, BROWN, GREEN, WHITE, BLUE, YELLOW, GREY, ORANGE = (
    (210, 50, 45),
    (120, 75, 40),
    (50, 140, 60),
    (240, 240, 235),
    (60, 90, 190),
    (245, 205, 60),
    (110, 110, 120),
    (235, 130, 40),
)

# An object consists of shapes in the square from -1 to 1 (y downwards), painted in order: disc x y
# radius, box left top right bottom, tent x top bottom half-width (of its base; a base above the top
# hangs down). None: the background colour.
THINGS = {
    "apple": [
        ("box", -0.06, -0.9, 0.06, -0.4, BROWN),
        ("disc", 0.25, -0.65, 0.2, GREEN),
        ("disc", 0, 0.15, 0.68, RED),
    ],
    "boat": [
        ("box", -0.06, -0.9, 0.06, 0.3, BROWN),
        ("tent", 0.05, -0.85, 0.2, 0.6, WHITE),
        ("tent", 0, 1.6, 0.3, 0.95, RED),
        ("box", -1, 0.75, 1, 1, BLUE),
    ],
    "cup": [
        ("disc", 0.6, 0.05, 0.4, BLUE),
        ("disc", 0.6, 0.05, 0.22, None),
        ("box", -0.65, -0.5, 0.55, 0.7, BLUE),
        ("box", -0.55, -0.5, 0.45, -0.3, BROWN),
    ],
    "engine": [
        ("box", -0.85, -0.1, 0.8, 0.5, GREY),
        ("box", 0.2, -0.6, 0.8, 0, GREY),
        ("box", -0.65, -0.6, -0.4, -0.1, RED),
        ("disc", -0.5, 0.6, 0.25, BROWN),
        ("disc", 0.4, 0.6, 0.25, BROWN),
    ],
    "fish": [
        ("tent", 0.65, 0, 0.6, 0.4, ORANGE),
        ("tent", 0.65, 0, -0.6, 0.4, ORANGE),
        ("disc", -0.15, 0, 0.55, ORANGE),
        ("disc", -0.4, -0.15, 0.13, WHITE),
    ],
    "house": [
        ("box", -0.65, -0.1, 0.65, 0.85, WHITE),
        ("tent", 0, -0.9, -0.1, 0.9, RED),
        ("box", -0.15, 0.3, 0.2, 0.85, BROWN),
    ],
    "moon": [("disc", 0, 0, 0.75, YELLOW), ("disc", 0.35, -0.15, 0.6, None)],
    "tree": [
        ("box", -0.13, 0.2, 0.13, 0.95, BROWN),
        ("tent", 0, -0.95, 0.1, 0.6, GREEN),
        ("tent", 0, -0.5, 0.55, 0.8, GREEN),
    ],
}


def covers(shape, x, y):
    name, a, b, c = shape[:4]
    if name == "disc":
        return (x - a) ** 2 + (y - b) ** 2 < c * c
    if name == "box":
        return a < x < c and b < y < shape[4]
    share = (y - b) / (c - b)  # tent: 0 at its top, 1 at its base
    return 0 < share < 1 and abs(x - a) < share * shape[4]


def picture(kind, width, height, chance):
    """Rows of red, green and blue bytes."""
    tints = [chance.uniform(-25, 25) for _ in range(3)]
    ground = [chance.uniform(130, 215) for _ in range(3)]
    size = min(width, height) * chance.uniform(0.34, 0.44)
    x0, y0 = (
        width / 2 + size * chance.uniform(-0.15, 0.15),
        height / 2 + size * chance.uniform(-0.15, 0.15),
    )
    rows = []
    for j in range(height):
        row = bytearray()
        for i in range(width):
            x, y, colour = (i + 0.5 - x0) / size, (j + 0.5 - y0) / size, None
            for shape in THINGS[kind]:
                if covers(shape, x, y):
                    colour = shape[-1]
            row += bytes(
                int(min(255, max(0, value)))
                for value in (ground if colour is None else map(sum, zip(colour, tints)))
            )
        rows.append(bytes(row))
    return rows


def png(rows):
    """The bytes of a PNG file, from rows of red, green and blue bytes."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument(
        "--count",
        type=int,
        default=300,
        help="training pictures of a kind; a third as many are held out",
    )
    arguments = parser.parse_args()
    for split, count in (("train", arguments.count), ("test", arguments.count // 3)):
        for kind in THINGS:
            chance = random.Random(f"{split} {kind}")
            folder = arguments.folder / split / kind
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                (folder / f"{i:04}.png").write_bytes(
                    png(picture(kind, chance.randint(40, 52), chance.randint(40, 52), chance))
                )


if __name__ == "__main__":
    main()
