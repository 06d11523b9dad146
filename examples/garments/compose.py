#!/usr/bin/env python3
"""Makes small captioned pictures of garments out of Fashion-MNIST, for text-to-image models.

    apt-get install dataset-fashion-mnist python3-numpy
    python3 examples/garments/compose.py data/garments

README.md beside this file says what the pictures show, and what is written.
"""

import argparse
import dataclasses
import gzip
import pathlib
import sys

try:
    import numpy as np
except ImportError as missing:
    sys.exit(f"compose.py: {missing}; apt-get install python3-numpy")

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import captioned  # noqa: E402
from captioned import Attribute  # noqa: E402

GARMENTS = "/usr/share/datasets/fashion-mnist"
SIDE, LARGE, SMALL = 28, 20, 12
HELD_OUT = 2  # of the 18 scenes of a garment

# The words for one garment of each class of Fashion-MNIST, and for several.
WORDS = [
    (("t-shirt", "tee"), ("t-shirts", "tees")),
    (("pair of trousers", "pair of pants"), ("pairs of trousers", "pairs of pants")),
    (("pullover", "sweater"), ("pullovers", "sweaters")),
    (("dress", "gown"), ("dresses", "gowns")),
    (("coat", "jacket"), ("coats", "jackets")),
    (("sandal", "open shoe"), ("sandals", "open shoes")),
    (("shirt", "blouse"), ("shirts", "blouses")),
    (("sneaker", "running shoe"), ("sneakers", "running shoes")),
    (("bag", "handbag"), ("bags", "handbags")),
    (("ankle boot", "boot"), ("ankle boots", "boots")),
]
SIZES = {"large": ("large", "big"), "small": ("small", "little")}
AMOUNTS = (("one large", "large"), ("one small", "small"), ("two small", "small"))
PLACES = {
    "left": ("on the left", "at the left"),
    "middle": ("in the middle", "in the centre"),
    "right": ("on the right", "at the right"),
}
COLOURS = ("white", "black")  # of the garment; the background has the other


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows: a garment, and indices in AMOUNTS, PLACES and COLOURS."""

    garment: int
    amount: int
    place: int
    colour: int

    def wordings(self):
        """All captions of the scene: synonyms, and four word orders, one without the place."""
        colour, ground = COLOURS[self.colour], COLOURS[1 - self.colour]
        two, found = self.amount == 2, []
        for size in SIZES[AMOUNTS[self.amount][1]]:
            for what in WORDS[self.garment][two]:
                things = f"{'two' if two else 'a'} {size} {colour} {what}"
                found.append(f"{things} on {ground}")
                for where in list(PLACES.values())[self.place]:
                    found.append(f"{things} on {ground}, {where}")
                    found.append(f"{where}, {things} on {ground}")
                    found.append(f"a picture of {things} {where} on a {ground} background")
        return found


def attributes():
    """The attributes that captions mention; their classes are numbered as those of Scene are."""

    def numbered(values):
        return {f"{k}-{name}": phrases for k, (name, phrases) in enumerate(values)}

    sizes = {
        name: [f"{number}{word}" for word in SIZES[size]]
        for (name, size), number in zip(AMOUNTS, ("", "", "two "))
    }
    colours = {
        colour: [f"{size} {colour}" for words in SIZES.values() for size in words]
        for colour in COLOURS
    }
    return [
        Attribute("garment", numbered((one[0], [*one, *several]) for one, several in WORDS)),
        Attribute("amount", numbered(sizes.items())),
        Attribute("place", numbered(PLACES.items())),
        Attribute("colour", numbered(colours.items())),
    ]


# Chance. The streams are Atelier's own (src/atelier/core/random_streams.cpp), since the program
# composed the pictures that models/captions was trained on: scenes and captions are the same.

WORD, LONG = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def philox(counter, key):
    """Philox-4x32-10 (Salmon et al. 2011)."""
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        x, y = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = y >> 32 ^ b ^ k, y & WORD, x >> 32 ^ d ^ m, x & WORD
        k, m = k + 0x9E3779B9 & WORD, m + 0xBB67AE85 & WORD
    return a, b, c, d


def mixed(x):
    """The finaliser of SplitMix64."""
    x = x + 0x9E3779B97F4A7C15 & LONG
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & LONG
    x = (x ^ x >> 27) * 0x94D049BB133111EB & LONG
    return x ^ x >> 31


class Stream:
    """Random numbers that are a function of a name and an index."""

    def __init__(self, name, index):
        of_name = 0xCBF29CE484222325
        for byte in name.encode():
            of_name = (of_name ^ byte) * 0x100000001B3 & LONG
        key = mixed(mixed(0) ^ of_name)
        self._key, self._index = (key & WORD, key >> 32), (index & WORD, index >> 32)
        self._block, self._words = 0, []

    def below(self, bound):
        """A whole number from 0 to bound - 1."""
        while True:
            if not self._words:
                a, b, c, d = philox((self._block, 0, *self._index), self._key)
                self._block, self._words = self._block + 1, [c | d << 32, a | b << 32]
            word = self._words.pop()
            if word >= (LONG + 1 - bound) % bound:
                return word % bound

    def order(self, count):
        """0 to count - 1 in a random order."""
        found = list(range(count))
        for i in range(count, 1, -1):
            j = self.below(i)
            found[i - 1], found[j] = found[j], found[i - 1]
        return found


def scenes(held_out):
    """The scenes of training, or those that it never shows, though it shows each of their parts."""
    found = []
    for garment in range(len(WORDS)):
        order = Stream("captions/held out", garment).order(18)
        for combination in order[:HELD_OUT] if held_out else order[HELD_OUT:]:
            found.append(Scene(garment, combination // 6, combination // 2 % 3, combination % 2))
    return found


# Pictures


def shrunk(images, side):
    """uint8 [N,28,28] scaled down to [N,side,side] by a triangle filter, in whole numbers."""
    to = np.zeros((side, SIDE), np.int64)
    for i in range(side):  # distances in units of 1 / (2 side) of a pixel
        for j in range(SIDE):
            to[i, j] = max(0, 2 * SIDE - abs((2 * j + 1) * side - (2 * i + 1) * SIDE))
    sums = to.sum(1)
    whole = sums[:, None] * sums
    small = np.einsum("ij,njk,lk->nil", to, images.astype(np.int64), to, optimize=True)
    return ((2 * small + whole) // (2 * whole)).astype(np.uint8)


class Garments:
    """The garments of a split of Fashion-MNIST."""

    def __init__(self, folder, split):
        name = {"train": "train", "test": "t10k"}[split]
        images = read_idx(folder / f"{name}-images-idx3-ubyte", 0x803)
        self.classes = read_idx(folder / f"{name}-labels-idx1-ubyte", 0x801)
        if images.shape[1:] != (SIDE, SIDE) or len(images) != len(self.classes):
            sys.exit(f"compose.py: {folder}: holds no 28x28 images with a label each")
        self.large, self.small = shrunk(images, LARGE), shrunk(images, SMALL)
        self.of_class = [np.flatnonzero(self.classes == k) for k in range(len(WORDS))]


def read_idx(path, magic):
    """uint8 of the shape that an IDX file gives, gzip or plain."""
    packed = path.with_name(path.name + ".gz")
    if not path.exists() and not packed.exists():
        sys.exit(f"compose.py: {path}[.gz] is missing; apt-get install dataset-fashion-mnist")
    content = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    numbers = [int.from_bytes(content[at : at + 4], "big") for at in range(0, 16, 4)]
    shape = numbers[1 : 1 + magic % 4]
    if numbers[0] != magic or len(content) != 4 + 4 * len(shape) + int(np.prod(shape)):
        sys.exit(f"compose.py: {path}: is no IDX file of the kind that is expected here")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def drawn(scene, image, garments, stream):
    """The picture of a scene with garment `image`, uint8 [28,28]."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)

    def paste(picture, left, top):
        canvas[top : top + len(picture), left : left + len(picture)] = picture

    if scene.amount == 0:
        paste(garments.large[image], 4 * scene.place, 2 + stream.below(5))
    else:
        left = 7 * scene.place + stream.below(3)
        if scene.amount == 1:
            paste(garments.small[image], left, 2 + stream.below(13))
        else:
            paste(garments.small[image], left, 1 + stream.below(2))
            top, same = 15 + stream.below(2), garments.of_class[scene.garment]
            paste(garments.small[same[stream.below(len(same))]], left, top)
    return 255 - canvas if scene.colour == 1 else canvas


def composed(split, garments, count):
    """The first `count` pictures of a split: [(scene, caption, PNG file)]."""
    possible = [[] for _ in WORDS]
    for scene in scenes(split == "test"):
        possible[scene.garment].append((scene, scene.wordings()))
    pictures = []
    for i, garment in enumerate(garments.classes[:count]):
        stream = Stream(f"captions/{split}", i)
        scene, wordings = possible[garment][stream.below(len(possible[garment]))]
        caption = wordings[stream.below(len(wordings))]
        pixels = drawn(scene, i, garments, stream).tobytes()
        pictures.append((scene, caption, captioned.png(pixels, SIDE, SIDE)))
    return pictures


# Files


def paraphrases():
    """Lists of captions that say the same of a scene that is held out."""
    place, found = attributes()[2], []
    for scene in scenes(held_out=True):
        words = scene.wordings()
        for stated in (True, False):
            found.append([w for w in words if (place.class_in(w) is not None) == stated])
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path, help="where the files are written")
    parser.add_argument(
        "--classes", action="store_true", help="also archives to train the classifiers with"
    )
    parser.add_argument("--count", type=int, help="pictures of either split (all)")
    parser.add_argument("--garments", type=pathlib.Path, default=GARMENTS, help=GARMENTS)
    arguments = parser.parse_args()
    if arguments.count is not None and arguments.count < 1:
        parser.error("--count: 1 or more")
    pictures = {
        split: composed(split, Garments(arguments.garments, split), arguments.count)
        for split in ("train", "test")
    }
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    captioned.write_captioned(
        folder / "images.zip",
        {s: [(png, caption) for _, caption, png in found] for s, found in pictures.items()},
    )
    captioned.write_attributes(folder / "attributes.json", attributes(), paraphrases=paraphrases())
    if arguments.classes:
        (folder / "classes").mkdir(exist_ok=True)
        for attribute in attributes():
            captioned.write_classes(
                folder / f"classes/{attribute.name}.zip",
                attribute.classes,
                {
                    split: [(png, getattr(scene, attribute.name)) for scene, _, png in found]
                    for split, found in pictures.items()
                },
            )
    train, test = map(len, pictures.values())
    print(
        f"{folder / 'images.zip'}: {train} pictures for training, {test} of combinations that "
        f"training never shows"
    )


if __name__ == "__main__":
    main()
