"""What the scripts of this folder share: archives of images with captions, the same bytes on every
machine, the classes that captions mention, and the file that names them to `atelier`.

Needs only the standard library.
"""

import collections
import hashlib
import json
import os
import pathlib
import re
import struct
import zipfile
import zlib


class Draws:
    """Random numbers that are a function of words alone, whatever Python is installed."""

    def __init__(self, *words):
        self._key = "/".join(map(str, words)).encode()
        self._blocks, self._left = 0, []

    def below(self, bound):
        """A whole number from 0 to bound - 1."""
        if not self._left:
            block = hashlib.sha256(self._key + b"/%d" % self._blocks).digest()
            self._left = list(struct.unpack("<4Q", block))
            self._blocks += 1
        return self._left.pop() * bound >> 64

    def one_of(self, choices):
        return choices[self.below(len(choices))]


def png(pixels, width, height):
    """A PNG file of `height` rows of `width` grey pixels (1 byte) or colours (3 bytes).

    Its data are stored, not compressed, since versions of zlib compress differently.
    """
    colours = len(pixels) == 3 * width * height
    stride = len(pixels) // height
    rows = b"".join(b"\0" + pixels[y * stride : (y + 1) * stride] for y in range(height))
    body, longest = b"\x78\x01", 65535
    for at in range(0, len(rows), longest):
        block = rows[at : at + longest]
        last = at + longest >= len(rows)
        body += struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block
    body += struct.pack(">I", zlib.adler32(rows))
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if colours else 0, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        file += struct.pack(">I", len(data)) + kind + data + crc
    return file


class Archive:
    """A zip archive of stored files without times; it appears under its name when it is whole."""

    def __init__(self, path):
        self._path, self._unfinished = path, path.with_name(path.name + ".unfinished")
        self._zip = zipfile.ZipFile(self._unfinished, "w", zipfile.ZIP_STORED)

    def add(self, name, content):
        entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        entry.create_system, entry.external_attr = 3, 0o644 << 16
        self._zip.writestr(entry, content)

    def close(self):
        self._zip.close()
        os.replace(self._unfinished, self._path)


def write_captioned(path, splits):
    """Writes an archive of images with their captions (docs/own-data.md).

    `splits`: {"train": [(PNG file, caption), ...], "test": ...}.
    """
    archive = Archive(path)
    for split, images in splits.items():
        lines = []
        for i, (picture, caption) in enumerate(images):
            archive.add(f"{split}/{i:06}.png", picture)
            lines.append(json.dumps({"file_name": f"{i:06}.png", "text": caption}) + "\n")
        archive.add(f"{split}/metadata.jsonl", "".join(lines))
    archive.close()


def write_classes(path, classes, splits):
    """Writes an archive of images in classes, for `atelier classifier`.

    `classes` names them in order; `splits`: {"train": [(PNG file, class index), ...], "test": ...}.
    """
    archive = Archive(path)
    for split, images in splits.items():
        for i, (picture, k) in enumerate(images):
            archive.add(f"{split}/{classes[k].replace(' ', '-')}/{i:06}.png", picture)
    archive.close()


class Attribute:
    """What captions say about an attribute of their images.

    `values`: {class: [phrases]}, in the order of their folders' names, which is the classifier's.
    """

    def __init__(self, name, values):
        self.name = name
        self.values = dict(sorted(values.items(), key=lambda value: value[0].replace(" ", "-")))
        self.classes = list(self.values)
        self._phrases = [
            (phrase.lower(), k)
            for k, phrases in enumerate(self.values.values())
            for phrase in phrases
        ]
        count = collections.Counter(phrase for phrase, _ in self._phrases)
        if twice := [phrase for phrase in count if count[phrase] > 1]:
            raise ValueError(f"{name}: {', '.join(twice)}: said of two classes, or twice of one")

    def class_in(self, caption):
        """The class that a caption mentions, as `atelier evaluate --attributes` finds it.

        Phrases count as whole words, and not within a longer phrase that is found. None where the
        caption mentions no class, or several.
        """
        text = caption.lower()
        found = [(phrase, k) for phrase, k in self._phrases if phrase in text]
        found = [(phrase, k) for phrase, k in found if _contains(text, phrase)]
        classes = {
            k
            for phrase, k in found
            if not any(len(o) > len(phrase) and _contains(o, phrase) for o, _ in found)
        }
        return classes.pop() if len(classes) == 1 else None


def _contains(text, phrase):
    joins = r"[a-z0-9\-]|[^\x00-\x7f]"
    return re.search(f"(?<!{joins}){re.escape(phrase)}(?!{joins})", text) is not None


def write_attributes(path, attributes, folder="classifiers", paraphrases=()):
    """Writes the file for `evaluate.attributes`; each classifier is `folder`/NAME beside it.

    `paraphrases`: lists of captions of one meaning, which one student should own.
    """
    listed = [
        {
            "name": attribute.name,
            "classifier": (pathlib.PurePath(folder) / attribute.name).as_posix(),
            "values": list(attribute.values.values()),
        }
        for attribute in attributes
    ]
    more = {"paraphrases": paraphrases} if paraphrases else {}
    write_json(path, {"attributes": listed} | more)


def write_json(path, content):
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(unfinished, path)


def sha256_of(path):
    sum = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            sum.update(block)
    return sum.hexdigest()
