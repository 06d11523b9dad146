#!/usr/bin/env python3
"""Tests of examples/garments/compose.py on a small folder like that of dataset-fashion-mnist.

    python3 tests/examples/garments_test.py build/release/atelier
"""

import collections
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest
import zipfile
from fractions import Fraction

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples/garments/compose.py"
sys.path[:0] = [str(SCRIPT.parent), str(ROOT / "examples")]
# Of the images.zip of write_garments.
KNOWN_SUM = "822f1ded2c1f25356ad4c32daee5c48da6c0e84de987bf895a066b55b5101bba"
HELD_OUT_OF_T_SHIRTS = {(0, 0, 0), (2, 0, 0)}  # amount, place, colour
PROGRAM = pathlib.Path(sys.argv.pop(1)).resolve() if len(sys.argv) > 1 else None

try:
    import numpy as np
except ImportError:
    print("skipped: apt-get install python3-numpy")
    sys.exit(77)

import captioned  # noqa: E402
import compose  # noqa: E402


def write_garments(folder, count=200, side=28):
    """Images of one grey each, 100 to 255, in ten classes."""
    folder.mkdir(exist_ok=True)
    shades = (100 + np.arange(count) % 156).astype(np.uint8)
    images = np.repeat(shades, side * side).tobytes()
    for split in ("train", "t10k"):
        head = b"".join(n.to_bytes(4, "big") for n in (0x803, count, side, side))
        (folder / f"{split}-images-idx3-ubyte").write_bytes(head + images)
        head = b"".join(n.to_bytes(4, "big") for n in (0x801, count))
        labels = bytes(i % 10 for i in range(count))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(head + labels)


def run(folder, *more):
    return subprocess.run(
        [sys.executable, SCRIPT, folder, *more], capture_output=True, text=True
    )


class Words(unittest.TestCase):
    """What scenes and captions there are."""

    def test_every_wording_states_its_scene_and_the_rule_of_attributes_reads_it(self):
        without_place = collections.Counter()
        for held_out in (False, True):
            for scene in compose.scenes(held_out):
                for words in scene.wordings():
                    for attribute in compose.attributes():
                        found = attribute.class_in(words)
                        if attribute.name == "place" and found is None:
                            without_place[scene] += 1
                            continue
                        self.assertEqual(found, getattr(scene, attribute.name), words)
        self.assertEqual(set(without_place.values()), {4})  # two words for size, and for garment

    def test_wordings_that_state_the_place_are_of_one_scene(self):
        place, seen = compose.attributes()[2], set()
        for held_out in (False, True):
            for scene in compose.scenes(held_out):
                for words in scene.wordings():
                    if place.class_in(words) is not None:
                        self.assertNotIn(words, seen)
                        seen.add(words)

    def test_training_shows_every_part_and_no_held_out_scene(self):
        shown, held_out = compose.scenes(False), compose.scenes(True)
        self.assertEqual((len(shown), len(held_out)), (160, 20))
        self.assertEqual(sum(len(scene.wordings()) for scene in shown), 4480)
        self.assertFalse(set(shown) & set(held_out))
        for attribute in compose.attributes():
            values = {getattr(scene, attribute.name) for scene in shown}
            self.assertEqual(values, set(range(len(attribute.classes))), attribute.name)
        counts = collections.Counter(scene.garment for scene in held_out)
        self.assertEqual(set(counts.values()), {2})

    def test_words_within_other_words_are_not_found(self):
        garment = compose.attributes()[0]
        for caption, expected in (
            ("a large white t-shirt on black", 0),
            ("a large white shirt on black", 6),
            ("two little black ankle boots on white", 9),
            ("a large white handbag on black", 8),
            ("a large white elephant on black", None),
        ):
            self.assertEqual(garment.class_in(caption), expected, caption)

    def test_streams_are_those_of_the_program(self):
        # Of Salmon et al. 2011, as in tests/core/random_streams_test.cpp.
        ones = 0xFFFFFFFF
        self.assertEqual(
            compose.philox((ones,) * 4, (ones,) * 2),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        )
        # The scenes that the shipped students never saw.
        held_out = {(s.amount, s.place, s.colour) for s in compose.scenes(True) if s.garment == 0}
        self.assertEqual(held_out, HELD_OUT_OF_T_SHIRTS)

    def test_shipped_classifiers_have_these_attributes(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "attributes.json"
            captioned.write_attributes(
                path, compose.attributes(), folder="", paraphrases=compose.paraphrases()
            )
            shipped = ROOT / "models/captions/classifiers/attributes.json"
            self.assertEqual(path.read_text(), shipped.read_text())
        for attribute in compose.attributes():
            config = shipped.parent / attribute.name / "config.json"
            classes = json.loads(config.read_text())["classes"]
            self.assertEqual(classes, len(attribute.classes), attribute.name)

    def test_paraphrases_say_the_same(self):
        for words in compose.paraphrases():
            self.assertGreater(len(words), 1)
            for attribute in compose.attributes():
                self.assertEqual(len({attribute.class_in(w) for w in words}), 1, words)


class Pictures(unittest.TestCase):
    """What is written."""

    @classmethod
    def setUpClass(cls):
        held = tempfile.TemporaryDirectory()
        cls.addClassCleanup(held.cleanup)
        cls.folder = pathlib.Path(held.name)
        write_garments(cls.folder / "source")
        cls.source = ("--garments", str(cls.folder / "source"))
        made = run(cls.folder / "a", *cls.source, "--classes")
        assert made.returncode == 0, made.stderr
        with zipfile.ZipFile(cls.folder / "a/images.zip") as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        cls.pictures = {}  # {split: [(PNG file, caption)]}
        for split in ("train", "test"):
            lines = map(json.loads, files[f"{split}/metadata.jsonl"].decode().splitlines())
            cls.pictures[split] = [
                (files[f"{split}/{line['file_name']}"], line["text"]) for line in lines
            ]

    def test_pictures_show_amount_place_and_colour(self):
        attributes = {attribute.name: attribute for attribute in compose.attributes()}
        self.assertEqual([len(found) for found in self.pictures.values()], [200, 200])
        for png, caption in self.pictures["train"] + self.pictures["test"]:
            said = {name: one.class_in(caption) for name, one in attributes.items()}
            # Stored rows: each is preceded by its filter, in one block of 28 * 29 bytes.
            at = png.index(b"IDAT") + 4 + 2 + 5
            rows = np.frombuffer(png, np.uint8, 28 * 29, at).reshape(28, 29)
            self.assertFalse(rows[:, 0].any())
            pixels = rows[:, 1:]
            ink = (255 - pixels if said["colour"] == 1 else pixels) > 12
            self.assertEqual(ink.sum(), (20 * 20, 12 * 12, 2 * 12 * 12)[said["amount"]], caption)
            if said["place"] is not None:
                middle = (ink.sum(0) * np.arange(28)).sum() / ink.sum()
                step = 4 if said["amount"] == 0 else 7
                self.assertLessEqual(abs(middle - 13.5 - (said["place"] - 1) * step), 1.6, caption)

    def test_garments_are_those_of_the_captions(self):
        garment = compose.attributes()[0]
        for found in self.pictures.values():
            for i, (_, caption) in enumerate(found):
                self.assertEqual(garment.class_in(caption), i % 10, caption)

    def test_garments_are_scaled_as_pillow_does(self):
        try:
            from PIL import Image
        except ImportError:
            self.skipTest("apt-get install python3-pil")
        images = np.random.default_rng(1).integers(0, 256, (20, 28, 28)).astype(np.uint8)
        for side in (compose.LARGE, compose.SMALL):
            small = compose.shrunk(images, side).astype(int)
            self.assertEqual(small.shape, (20, side, side))
            for ours, image in zip(small, images):
                theirs = Image.fromarray(image).resize((side, side), Image.BILINEAR)
                self.assertLessEqual(abs(ours - np.asarray(theirs)).max(), 1)

    def test_garments_are_scaled_exactly_and_halves_rounded_up(self):
        row = [j % 2 for j in range(28)]
        for side in (compose.LARGE, compose.SMALL):
            scale, expected = Fraction(28, side), []
            for i in range(side):
                away = [abs(j + Fraction(1, 2) - scale * (i + Fraction(1, 2))) for j in range(28)]
                weights = [max(Fraction(0), 1 - distance / scale) for distance in away]
                value = sum(w * x for w, x in zip(weights, row)) / sum(weights)
                expected.append(math.floor(value + Fraction(1, 2)))
            image = np.tile(np.array(row, np.uint8), (1, 28, 1))
            self.assertEqual(compose.shrunk(image, side)[0].tolist(), [expected] * side)

    def test_classes_are_those_of_the_scenes(self):
        for attribute in compose.attributes():
            with zipfile.ZipFile(self.folder / f"a/classes/{attribute.name}.zip") as archive:
                files = archive.namelist()
                self.assertEqual(len(files), 400)
                for file in files:
                    split, name, number = file.split("/")
                    png, caption = self.pictures[split][int(number.removesuffix(".png"))]
                    self.assertEqual(archive.read(file), png)
                    stated = attribute.class_in(caption)
                    if stated is not None:
                        self.assertEqual(name, attribute.classes[stated].replace(" ", "-"))

    def test_the_same_files_come_out_every_time_and_count_takes_the_first(self):
        again, few = self.folder / "again", self.folder / "few"
        self.assertEqual(run(again, *self.source).returncode, 0)
        self.assertEqual(captioned.sha256_of(again / "images.zip"), KNOWN_SUM)
        for name in ("images.zip", "attributes.json"):
            self.assertEqual((again / name).read_bytes(), (self.folder / "a" / name).read_bytes())
        self.assertFalse((again / "classes").exists())
        self.assertEqual(run(few, *self.source, "--count", "30").returncode, 0)
        with zipfile.ZipFile(few / "images.zip") as archive:
            self.assertEqual(len(archive.namelist()), 2 * (30 + 1))
            self.assertEqual(archive.read("train/000029.png"), self.pictures["train"][29][0])

    def test_the_program_reads_them(self):
        if PROGRAM is None:
            self.skipTest("no program was named")
        for name, expected in (("images.zip", "samples: 200"), ("classes/garment.zip", "9-ankle")):
            said = subprocess.run(
                [PROGRAM, "inspect", self.folder / "a" / name], capture_output=True, text=True
            )
            self.assertIn(expected, said.stdout, said.stderr)
        for form in ("", "amount:"):
            old = f"captions:{form}{self.folder / 'source'}"
            said = subprocess.run([PROGRAM, "inspect", old], capture_output=True, text=True)
            self.assertEqual(said.returncode, 2)
            self.assertIn("python3 examples/garments/compose.py data/garments", said.stderr)

    def test_what_is_missing_is_named(self):
        said = run(self.folder / "b", "--garments", "/nowhere")
        self.assertEqual(said.returncode, 1)
        self.assertIn("apt-get install dataset-fashion-mnist", said.stderr)
        write_garments(self.folder / "small", side=8)
        said = run(self.folder / "b", "--garments", self.folder / "small")
        self.assertIn("28x28", said.stderr)
        self.assertFalse((self.folder / "b").exists())


if __name__ == "__main__":
    unittest.main()
