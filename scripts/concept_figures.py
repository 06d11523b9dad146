#!/usr/bin/env python3
"""Draws the figures of docs/concepts.md from what `atelier` answers, the same ones each time; only the standard library is needed.

    build/release/atelier run configs/toy2d.toml      # runs/toy2d, which two of them show
    python3 scripts/concept_figures.py
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
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + len(numbers)]}
        body += numbers
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def read_safetensors(path, name):
    data = path.read_bytes()
    length = struct.unpack_from("<Q", data)[0]
    begin, end = json.loads(data[8:8 + length])[name]["data_offsets"]
    return array.array("f", data[8 + length + begin:8 + length + end])


def read_npz(path, name, kind):
    with zipfile.ZipFile(path) as archive:
        data = archive.read(name + ".npy")
    return array.array(kind, data[10 + struct.unpack_from("<H", data, 8)[0]:])


def svg(width, height, parts, title):
    # A ground of its own, so that words are read on dark pages too.
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
                      f"<title>{title}</title>", f'<rect width="{width}" height="{height}" fill="#fff"/>', *parts, "</svg>", ""])


def words(x, y, text, anchor="middle"):
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" {FONT}>{text}</text>'


def grey_image(x, y, side, values):
    """Values from -1 to 1, 28 a row."""
    rows = []
    for j in range(28):
        row = [int(min(255, max(0, 127.5 * value + 128))) for value in values[28 * j:28 * j + 28]]
        rows.append(bytes(level for level in row for _ in range(3)))
    data = base64.b64encode(png(rows)).decode()
    return f'<image x="{x}" y="{y}" width="{side}" height="{side}" style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'


def denoising(folder):
    """One coat of the test split under more and more noise, and what the teacher takes it for."""
    levels, coat, label = (0.1, 0.3, 1, 3, 10, 80), 6, 4
    with gzip.open(CLOTHES / "t10k-images-idx3-ubyte.gz") as file:
        pixels = file.read()[16 + 784 * coat:][:784]
    with gzip.open(CLOTHES / "t10k-labels-idx1-ubyte.gz") as file:
        assert file.read()[8 + coat] == label
    clean = [pixel / 127.5 - 1 for pixel in pixels]
    chance = random.Random(1)
    noise = [chance.gauss(0, 1) for _ in clean]
    noised = [[x + level * z for x, z in zip(clean, noise)] for level in levels]
    n = len(levels)
    write_safetensors(folder / "in.safetensors", {"x": ([n, 1, 28, 28], [v for one in noised for v in one]), "sigma": ([n], levels),
                                                  "class_labels": ([n, 10], [float(c == label) for _ in levels for c in range(10)])})
    atelier("forward", "models/fashion-mnist/teacher", "--in", folder / "in.safetensors", "--out", folder / "out.safetensors")
    answers = read_safetensors(folder / "out.safetensors", "out")
    side, gap, left, top = 84, 8, 76, 26
    parts = [words(left - 10, top + side / 2 + 4, "noised", "end"), words(left - 10, top + 1.5 * side + gap + 4, "denoised", "end")]
    for i, level in enumerate(levels):
        x = left + i * (side + gap)
        shown = [v / (1 + level * level) ** 0.5 for v in noised[i]]  # scaled into the range of a picture
        parts += [words(x + side / 2, 17, f"sigma {level}"), grey_image(x, top, side, shown), grey_image(x, top + side + gap, side, answers[784 * i:784 * i + 784])]
    return svg(left + n * (side + gap), top + 2 * side + 2 * gap, parts, "A coat at six noise levels, and the teacher's denoised answers")


def scatter(x0, side, points, colours):
    """Points of the square from -1.5 to 1.5."""
    dots = []
    for (x, y), colour in zip(points, colours):
        dots.append(f'<circle cx="{x0 + side * (x / 3 + 0.5):.1f}" cy="{28 + side * (0.5 - y / 3):.1f}" r="1.5" fill="{colour}" fill-opacity="0.7"/>')
    return [f'<rect x="{x0}" y="28" width="{side}" height="{side}" fill="none" stroke="#ccc"/>', *dots]


def partition(folder, run, count=700):
    """The ring's eight classes by owner: the teacher's samples, and the students'."""
    owner = json.loads((run / "partition.json").read_text())["owner"]
    side, parts = 270, []
    for i, (model, title) in enumerate((("teacher", "teacher, 35 evaluations a point"), ("ensemble", "four students, 1 evaluation a point"))):
        atelier("sample", run / model, "--count", count, "--seed", 1, "--out", folder / f"{model}.npz")
        numbers, labels = read_npz(folder / f"{model}.npz", "arr_0", "f"), read_npz(folder / f"{model}.npz", "labels", "q")
        points = list(zip(numbers[::2], numbers[1::2]))
        x0 = 10 + i * (side + 20)
        parts += [words(x0 + side / 2, 19, title), *scatter(x0, side, points, [COLOURS[owner[label]] for label in labels])]
    for k, colour in enumerate(COLOURS):
        parts += [f'<circle cx="{95 + 115 * k}" cy="{side + 46}" r="5" fill="{colour}"/>', words(105 + 115 * k, side + 51, f"student {k}", "start")]
    return svg(2 * side + 40, side + 62, parts, "Samples on the ring, coloured by the student that owns their class")


def cost():
    """Milliseconds a picture, from the shipped models' evaluation."""
    models = json.loads((ROOT / "models/fashion-mnist/evaluation.json").read_text())["models"]
    rows = []
    for name, label in (("teacher", "teacher"), ("K=4 students", "a student")):
        rows.append((f"{label}, {models[name]['evaluations']} evaluation{'s' * (models[name]['evaluations'] > 1)}", 1000 * models[name]["latency"]["median_seconds"]))
    longest, parts = max(ms for _, ms in rows), []
    for i, (label, ms) in enumerate(rows):
        y, width = 12 + 34 * i, 330 * ms / longest
        parts += [words(165, y + 17, label, "end"), f'<rect x="175" y="{y}" width="{width:.1f}" height="24" fill="{COLOURS[1 - i]}"/>',
                  words(183 + width, y + 17, f"{ms:.3g} ms", "start")]
    return svg(590, 84, parts, "Time of one picture: teacher and student")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toy", type=pathlib.Path, default=ROOT / "runs/toy2d", help="a finished run of configs/toy2d.toml")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/images")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (arguments.out / "denoising.svg").write_text(denoising(folder))
        (arguments.out / "cost.svg").write_text(cost())
        (arguments.out / "partition.svg").write_text(partition(folder, arguments.toy.resolve()))


if __name__ == "__main__":
    main()
