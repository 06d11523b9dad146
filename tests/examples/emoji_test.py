#!/usr/bin/env python3
"""Tests of examples/emoji/compose.py on a small data set.

    python3 tests/examples/emoji_test.py build/release/atelier
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples/emoji/compose.py"
sys.path.insert(0, str(ROOT / "examples"))
import captioned  # noqa: E402

PROGRAM = pathlib.Path(sys.argv.pop(1)).resolve() if len(sys.argv) > 1 else None
NEEDED = ("fonts-noto-color-emoji", "unicode-data", "python3-numpy", "python3-pil")
# Of images.zip with the packages of Debian 12; the same with Pillow 9.4 and 13.0.
DEBIAN_12 = {"fonts-noto-color-emoji": "2.042-0+deb12u1", "unicode-data": "15.0.0-1"}
DEBIAN_12_SUM = "54174324fce5e4fdbb5b6b78354f4561662a75ff1be3ce84d14073d705530f4e"


def composed(folder, *more):
    return subprocess.run(
        [sys.executable, SCRIPT, folder, "--count", "1500", "--test", "400", *more],
        capture_output=True,
        text=True,
    )


class Emoji(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        held = tempfile.TemporaryDirectory()
        cls.addClassCleanup(held.cleanup)
        cls.folder = pathlib.Path(held.name) / "a"
        made = composed(cls.folder)
        assert made.returncode == 0, made.stderr
        cls.about = json.loads((cls.folder / "about.json").read_text())
        with zipfile.ZipFile(cls.folder / "images.zip") as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        cls.captions, cls.pictures = {}, {}
        for split in ("train", "test"):
            lines = files[f"{split}/metadata.jsonl"].decode().splitlines()
            for line in map(json.loads, lines):
                name = f"{split}/{line['file_name']}"
                cls.captions[name], cls.pictures[name] = line["text"], files[name]
        listed = json.loads((cls.folder / "attributes.json").read_text())["attributes"]
        cls.attributes = {one["name"]: one for one in listed}

    def rule(self, name):
        """The attribute with its classes by number, read from attributes.json."""
        values = self.attributes[name]["values"]
        return captioned.Attribute(name, {f"{k:03}": words for k, words in enumerate(values)})

    def of(self, split):
        return [text for name, text in self.captions.items() if name.startswith(split)]

    def test_a_seed_stands_for_the_same_bytes(self):
        for more, same in (((), True), (("--seed", "2"), False)):
            folder = self.folder.with_name(f"again{len(more)}")
            self.assertEqual(composed(folder, *more).returncode, 0)
            about = json.loads((folder / "about.json").read_text())
            self.assertEqual(about["sha256"] == self.about["sha256"], same)

    def test_the_packages_of_debian_12_make_the_known_bytes(self):
        if self.about["made_of"]["packages"] != DEBIAN_12:
            self.skipTest("other packages are installed")
        self.assertEqual(self.about["sha256"]["images.zip"], DEBIAN_12_SUM)

    def test_pictures_differ_and_captions_of_the_test_split_are_new(self):
        self.assertEqual(len(self.pictures), 1900)
        self.assertEqual(len(set(self.pictures.values())), 1900)
        self.assertFalse(set(self.of("train")) & set(self.of("test")))

    def test_held_out_combinations_are_not_in_training(self):
        colour, thing = self.rule("colour"), self.rule("object")
        skin, figure = self.rule("skin"), self.rule("figure")
        for a, b, held in ((colour, thing, 12), (skin, figure, 18)):
            seen = {(a.class_in(text), b.class_in(text)) for text in self.of("train")}
            whole = [text for text in self.of("test") if " beside " not in text]
            tested = {
                (a.class_in(text), b.class_in(text)) for text in whole if " next to " not in text
            }
            new = {pair for pair in tested - seen if None not in pair}
            self.assertEqual(new, {pair for pair in tested if None not in pair})
            self.assertGreater(len(new), held // 2)
            self.assertLessEqual(len(new), held)

    def test_captions_say_what_they_should(self):
        for text in self.captions.values():
            self.assertRegex(text, r"^[A-Za-z' ,-]+$")
            self.assertIsNone(re.search(r"\ba [aeiou]|\ban (?!hour)[^aeiouAO]|  ", text), text)

    def test_pictures_in_classes_are_those_whose_captions_say_so(self):
        of_picture = {
            (name.partition("/")[0], picture): self.captions[name]
            for name, picture in self.pictures.items()
        }
        for name in self.attributes:
            rule, count = self.rule(name), 0
            with zipfile.ZipFile(self.folder / f"classes/{name}.zip") as archive:
                files = archive.namelist()
                folders = sorted({file.split("/")[1] for file in files})
                self.assertEqual(len(folders), len(rule.classes))
                for file in files:
                    split, folder, _ = file.split("/")
                    caption = of_picture[split, archive.read(file)]
                    self.assertEqual(rule.class_in(caption), folders.index(folder), caption)
                    count += 1
            self.assertGreater(count, 50)

    def test_the_program_reads_them(self):
        if PROGRAM is None:
            self.skipTest("no program was named")
        for name, expected in (
            ("images.zip", "captions: 1500"),
            ("classes/colour.zip", "classes: 6"),
            ("classes/kind.zip", "police-officer: "),
        ):
            said = subprocess.run(
                [PROGRAM, "inspect", self.folder / name], capture_output=True, text=True
            )
            self.assertIn(expected, said.stdout, said.stderr)

    def test_what_is_missing_is_named(self):
        said = composed(self.folder / "b", "--font", "/nowhere/a.ttf")
        self.assertEqual(said.returncode, 1)
        self.assertIn("/nowhere/a.ttf is missing; apt-get install fonts-noto", said.stderr)
        self.assertEqual(composed(self.folder / "b", "--size", "7").returncode, 2)
        self.assertFalse((self.folder / "b").exists())


def missing():
    try:
        import numpy  # noqa: F401
        from PIL import features

        raqm = features.check("raqm")
    except ImportError:
        raqm = False
    places = ("truetype/noto/NotoColorEmoji.ttf", "/usr/share/unicode/emoji/emoji-test.txt")
    return not raqm or not all((pathlib.Path("/usr/share/fonts") / p).exists() for p in places)


if __name__ == "__main__":
    if missing():
        print(f"skipped: apt-get install {' '.join(NEEDED)}")
        sys.exit(77)
    unittest.main()
