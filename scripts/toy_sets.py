#!/usr/bin/env python3
"""Labelled sets of points in the plane, written as safetensors: points [N,2], labels [N].

    python3 scripts/toy_sets.py rings points.safetensors             # 40,000 points
    python3 scripts/toy_sets.py rings held-out.safetensors --seed 1  # others
    python3 scripts/toy_sets.py --list

For the study of students that are too small for their data (scripts/study.py). Needs only the
standard library.
"""

import argparse
import array
import json
import math
import pathlib
import random
import sys

COUNT = 40_000


def spirals(stream):
    """Two interleaved spirals of one turn and a half, each in four pieces."""
    arm, share = stream.randrange(2), stream.random()
    radius = 0.2 + 0.8 * share
    angle = 3 * math.pi * share + math.pi * arm
    return radius * math.cos(angle), radius * math.sin(angle), 0.02, 4 * arm + int(4 * share)


def modes(stream):
    """A grid of 6 x 6 normal modes, with shares from 1 to 4, in nine blocks of four."""
    weights = [1 + (i * 7 % 36) / 12 for i in range(36)]
    mode = stream.choices(range(36), weights)[0]
    row, column = divmod(mode, 6)
    return (column - 2.5) / 3, (row - 2.5) / 3, 0.03, 3 * (row // 2) + column // 2


def rings(stream):
    """Four concentric rings, each in two halves, with shares by circumference."""
    ring = stream.choices(range(4), [1, 2, 3, 4])[0]
    turn = stream.random()
    angle, radius = 2 * math.pi * turn, (ring + 1) / 4
    return radius * math.cos(angle), radius * math.sin(angle), 0.015, 2 * ring + int(2 * turn)


SETS = {"spirals": spirals, "modes": modes, "rings": rings}


def write(name, path, seed=0):
    """Writes the points of a seed unless the file is there."""
    path = pathlib.Path(path)
    if path.exists():
        return
    stream = random.Random(f"atelier/{name}/{seed}")
    points, labels = array.array("f"), array.array("q")
    for _ in range(COUNT):
        x, y, noise, label = SETS[name](stream)
        points.extend((x + stream.gauss(0, noise), y + stream.gauss(0, noise)))
        labels.append(label)
    if sys.byteorder == "big":
        points.byteswap(), labels.byteswap()
    first = len(points) * points.itemsize
    head = {
        "points": {"dtype": "F32", "shape": [COUNT, 2], "data_offsets": [0, first]},
        "labels": {
            "dtype": "I64",
            "shape": [COUNT],
            "data_offsets": [first, first + len(labels) * labels.itemsize],
        },
    }
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_bytes(
        len(text).to_bytes(8, "little") + text + points.tobytes() + labels.tobytes()
    )
    temporary.replace(path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=SETS)
    parser.add_argument("path", nargs="?")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other points")
    parser.add_argument("--list", action="store_true", help="the sets, a line each")
    arguments = parser.parse_args()
    if arguments.list:
        for name, point in SETS.items():
            print(f"{name:8} {point.__doc__}")
        return
    if not arguments.path:
        parser.error("name a set and the file to write, e.g. rings points.safetensors")
    write(arguments.name, arguments.path, arguments.seed)


if __name__ == "__main__":
    main()
