#!/usr/bin/env python3
"""Draws the figures of docs/concepts.md with `atelier` and the shipped models, deterministically.

    python3 scripts/concept_figures.py

Needs only the standard library.
"""

import argparse
import array
import base64
import gzip
import json
import pathlib
import random
import struct
import subprocess
import tempfile
import zipfile

from make_pictures import png

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "build/release/atelier"
CLOTHES = pathlib.Path("/usr/share/datasets/fashion-mnist")
COLOURS = ("#3b6fb6", "#d1495b", "#3f9b63", "#c98a1b")
FONT = 'font-family="sans-serif" font-size="13" fill="#444"'


def atelier(*arguments):
    subprocess.run([PROGRAM, "-q", *map(str, arguments)], check=True, cwd=ROOT)


def write_safetensors(path, tensors):
    """`tensors`: name -> (shape, floats)."""
    header, body = {}, b""
    for name, (shape, values) in tensors.items():
        numbers = array.array("f", values).tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [len(body), len(body) + len(numbers)],
        }
        body += numbers
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def read_safetensors(path, name):
    data = path.read_bytes()
    length = struct.unpack_from("<Q", data)[0]
    begin, end = json.loads(data[8 : 8 + length])[name]["data_offsets"]
    return array.array("f", data[8 + length + begin : 8 + length + end])


def read_npz(path, name, kind):
    with zipfile.ZipFile(path) as archive:
        data = archive.read(name + ".npy")
    return array.array(kind, data[10 + struct.unpack_from("<H", data, 8)[0] :])


def svg(width, height, parts, title):
    # With its own background, so that text is legible on dark pages too.
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">',
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def words(x, y, text, anchor="middle"):
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" {FONT}>{text}</text>'


def grey_image(x, y, side, values):
    """An image of values from -1 to 1, 28 per row."""
    rows = []
    for j in range(28):
        row = [int(min(255, max(0, 127.5 * value + 128))) for value in values[28 * j : 28 * j + 28]]
        rows.append(bytes(level for level in row for _ in range(3)))
    data = base64.b64encode(png(rows)).decode()
    return (
        f'<image x="{x}" y="{y}" width="{side}" height="{side}" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
    )


def denoising(folder):
    """A coat of the test split at increasing noise levels, and the teacher's denoised images."""
    levels, coat, label = (0.1, 0.3, 1, 3, 10, 80), 6, 4
    with gzip.open(CLOTHES / "t10k-images-idx3-ubyte.gz") as file:
        pixels = file.read()[16 + 784 * coat :][:784]
    with gzip.open(CLOTHES / "t10k-labels-idx1-ubyte.gz") as file:
        assert file.read()[8 + coat] == label
    clean = [pixel / 127.5 - 1 for pixel in pixels]
    chance = random.Random(1)
    noise = [chance.gauss(0, 1) for _ in clean]
    noised = [[x + level * z for x, z in zip(clean, noise)] for level in levels]
    n = len(levels)
    write_safetensors(
        folder / "in.safetensors",
        {
            "x": ([n, 1, 28, 28], [v for one in noised for v in one]),
            "sigma": ([n], levels),
            "class_labels": ([n, 10], [float(c == label) for _ in levels for c in range(10)]),
        },
    )
    atelier(
        "forward",
        "models/fashion-mnist/teacher",
        "--in",
        folder / "in.safetensors",
        "--out",
        folder / "out.safetensors",
    )
    answers = read_safetensors(folder / "out.safetensors", "out")
    side, gap, left, top = 84, 8, 76, 26
    parts = [
        words(left - 10, top + side / 2 + 4, "noised", "end"),
        words(left - 10, top + 1.5 * side + gap + 4, "denoised", "end"),
    ]
    for i, level in enumerate(levels):
        x = left + i * (side + gap)
        shown = [
            v / (1 + level * level) ** 0.5 for v in noised[i]
        ]  # scaled into the range of an image
        parts += [
            words(x + side / 2, 17, f"sigma {level}"),
            grey_image(x, top, side, shown),
            grey_image(x, top + side + gap, side, answers[784 * i : 784 * i + 784]),
        ]
    return svg(
        left + n * (side + gap),
        top + 2 * side + 2 * gap,
        parts,
        "A coat at six noise levels, and the teacher's denoised answers",
    )


def partition(folder):
    """Two images of each class by the shipped ensemble, in the colour of their student."""
    about = json.loads((ROOT / "models/fashion-mnist/k4/ensemble.json").read_text())
    owner = about["partition"]["owner"]
    atelier(
        "sample",
        "models/fashion-mnist/k4",
        "--count",
        20,
        "--class",
        "0,1,2,3,4,5,6,7,8,9",
        "--seed",
        3,
        "--out",
        folder / "k4.npz",
    )
    pixels, side, parts = read_npz(folder / "k4.npz", "arr_0", "B"), 56, []
    places = [8 + c * (side + 6) + 14 * owner[c] for c in range(10)]  # a gap between students
    for c, x in enumerate(places):
        for j in range(2):
            i = 10 * j + c
            parts.append(
                grey_image(
                    x,
                    34 + j * (side + 6),
                    side,
                    [level / 127.5 - 1 for level in pixels[784 * i : 784 * i + 784]],
                )
            )
    for k, colour in enumerate(COLOURS):
        own = [x for x, one in zip(places, owner) if one == k]
        begin, end = own[0], own[-1] + side
        parts += [
            f'<rect x="{begin}" y="24" width="{end - begin}" height="5" fill="{colour}"/>',
            words((begin + end) / 2, 17, f"student {k}"),
        ]
    return svg(
        places[-1] + side + 8,
        34 + 2 * (side + 6),
        parts,
        "Two pictures of each class, under the student that drew them",
    )


def cost():
    """Milliseconds per image, from the shipped models' evaluation."""
    models = json.loads((ROOT / "models/fashion-mnist/evaluation.json").read_text())["models"]
    rows = []
    for name, label in (("teacher", "teacher"), ("K=4 students", "a student")):
        rows.append(
            (
                f"{label}, {models[name]['evaluations']} "
                f"evaluation{'s' * (models[name]['evaluations'] > 1)}",
                1000 * models[name]["latency"]["median_seconds"],
            )
        )
    longest, parts = max(ms for _, ms in rows), []
    for i, (label, ms) in enumerate(rows):
        y, width = 12 + 34 * i, 330 * ms / longest
        parts += [
            words(165, y + 17, label, "end"),
            f'<rect x="175" y="{y}" width="{width:.1f}" height="24" fill="{COLOURS[1 - i]}"/>',
            words(183 + width, y + 17, f"{ms:.3g} ms", "start"),
        ]
    return svg(590, 84, parts, "Time of one picture: teacher and student")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (arguments.out / "denoising.svg").write_text(denoising(folder))
        (arguments.out / "cost.svg").write_text(cost())
        (arguments.out / "partition.svg").write_text(partition(folder))


if __name__ == "__main__":
    main()
