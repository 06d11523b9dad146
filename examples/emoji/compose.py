#!/usr/bin/env python3
"""Makes small captioned pictures in colour out of emoji, to train text-to-image models on.

    apt-get install fonts-noto-color-emoji unicode-data python3-numpy python3-pil
    python3 examples/emoji/compose.py data/emoji

README.md beside this file says what the pictures show, how they are varied, and what is written.
"""

import argparse
import dataclasses
import functools
import io
import pathlib
import re
import subprocess
import sys
import zlib

try:
    import numpy as np
    import PIL
    from PIL import Image, ImageDraw, ImageFont, features
except ImportError as missing:
    sys.exit(f"compose.py: {missing}; apt-get install python3-numpy python3-pil")

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import captioned  # noqa: E402
from captioned import Attribute, Draws  # noqa: E402

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
NAMES = "/usr/share/unicode/emoji/emoji-test.txt"
PACKAGES = ("fonts-noto-color-emoji", "unicode-data")
FONT_SIZE, LARGEST = 109, 136  # the font's pictures are of this size alone, up to 136 pixels wide

BACKGROUNDS = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "blue": (150, 205, 255),
    "pink": (255, 190, 215),
}

# Each colour's words, and its red, green and blue where a surface is neither shaded nor shining.
COLOURS = {
    "red": (("red", "crimson"), (244, 67, 54)),
    "orange": (("orange",), (255, 152, 0)),
    "yellow": (("yellow", "golden"), (253, 216, 53)),
    "green": (("green", "emerald"), (104, 170, 60)),
    "blue": (("blue", "azure"), (25, 118, 210)),
    "purple": (("purple", "violet"), (160, 70, 188)),
}
# What comes in these colours: its words, the emoji that is recoloured where there is none of the
# colour, and the colour that training never shows.
OBJECTS = {
    "heart": (("heart",), "red heart", "purple"),
    "circle": (("circle", "disc"), "red circle", "orange"),
    "square": (("square",), "red square", "green"),
    "star": (("star",), "star", "blue"),
    "book": (("book",), "blue book", "yellow"),
    "car": (("car", "automobile"), "automobile", "purple"),
    "balloon": (("balloon",), "balloon", "green"),
    "umbrella": (("umbrella",), "umbrella", "orange"),
    "bird": (("bird",), "bird", "red"),
    "fish": (("fish",), "fish", "yellow"),
    "dress": (("dress", "gown"), "dress", "red"),
    "apple": (("apple",), "red apple", "blue"),
}
MIRRORED_OBJECTS = {"car", "balloon", "umbrella", "bird", "fish", "apple"}

TONES = {
    "light": ("light", "pale"),
    "medium-light": ("medium-light",),
    "medium": ("medium",),
    "medium-dark": ("medium-dark",),
    "dark": ("dark",),
}
# What comes in these skin tones: its phrases, and the tone that training never shows.
PEOPLE = {
    "woman": (("a woman", "a lady"), "medium"),
    "man": (("a man",), "medium-light"),
    "girl": (("a girl",), "light"),
    "boy": (("a boy",), "medium-dark"),
    "baby": (("a baby", "an infant"), "dark"),
    "old woman": (("an old woman", "a grandmother"), "light"),
    "old man": (("an old man", "a grandfather"), "medium-dark"),
    "police officer": (("a police officer",), "dark"),
    "cook": (("a cook", "a chef"), "medium"),
    "farmer": (("a farmer",), "medium-light"),
}
HANDS = {
    "thumbs up": (("a thumbs up", "a raised thumb"), "medium-dark"),
    "thumbs down": (("a thumbs down", "a lowered thumb"), "medium"),
    "waving hand": (("a waving hand",), "dark"),
    "raised fist": (("a raised fist", "a fist"), "medium-light"),
    "victory hand": (("a victory hand", "a peace sign"), "light"),
    "OK hand": (("an OK hand",), "medium"),
    "flexed biceps": (("a flexed arm",), "dark"),
    "index pointing up": (("a pointing finger",), "medium-light"),
}
FIGURES = PEOPLE | HANDS
# Hair of women and men: what follows "with", what precedes the noun.
HAIR = {
    "red hair": (("red hair",), "red-haired"),
    "curly hair": (("curly hair",), "curly-haired"),
    "white hair": (("white hair",), "white-haired"),
    "blond hair": (("blond hair", "blonde hair"), "blond-haired"),
    "bald": (("no hair",), "bald"),
    "beard": (("a beard",), "bearded"),
}
HAIR_OF = {"woman": [hair for hair in HAIR if hair != "beard"], "man": list(HAIR)}

KINDS = {"object": 28, "figure": 32, "thing": 28, "pair": 12}  # per cent of the pictures
CLASS_PICTURES = {"train": 8000, "test": 2000}  # in an archive for a classifier, at most


@dataclasses.dataclass(frozen=True)
class Item:
    """One emoji of a picture: what is drawn, and what it is in the classes of each attribute."""

    text: str  # the emoji
    colour: str | None  # it is recoloured to
    mirrored: bool  # whether it may be
    is_a: tuple  # (attribute, class) of each attribute that it has
    words: tuple  # object: (colour, object); figure: (name, tone, hair); thing: (name,)


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def without_article(phrase):
    return re.sub(r"^an? ", "", phrase)


class Emoji:
    """The emoji of the installed font and of things.txt by their names."""

    def __init__(self, names, font):
        self.text = {}
        for line in open(names, encoding="utf-8"):
            found = re.match(r"([0-9A-F ]+); fully-qualified +# \S+ E[\d.]+ (.*)", line)
            if found:
                self.text[found[2]] = "".join(chr(int(code, 16)) for code in found[1].split())
        self.font = ImageFont.truetype(font, FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
        self.things, self.beside = {}, []  # {name: (group, mirrored, phrases)}
        for line in open(HERE / "things.txt", encoding="utf-8"):
            line = line.strip()
            if heading := re.fullmatch(r"\[(\w+)( flip)?\]", line):
                group, mirrored = heading[1], bool(heading[2])
            elif line and not line.startswith("#"):
                name, _, phrases = line.removeprefix("+ ").partition(": ")
                self.things[name] = (group, mirrored, tuple((phrases or article(name)).split(", ")))
                self.beside += [name] * line.startswith("+ ")
        for name in self.things:
            self.named(name)
        self.groups = list(dict.fromkeys(group for group, _, _ in self.things.values()))

    def named(self, name):
        if name not in self.text:
            sys.exit(f'compose.py: {NAMES} has no "{name}"; install the unicode-data of Debian 12')
        return self.text[name]

    @functools.cache
    def picture(self, text):
        """The emoji's picture without the empty border, Pillow's RGBA."""
        margin = LARGEST // 4
        picture = Image.new("RGBA", (LARGEST + 2 * margin, LARGEST + 2 * margin))
        at = (margin, margin)
        ImageDraw.Draw(picture).text(at, text, font=self.font, embedded_color=True)
        box = picture.getbbox()
        if box is None or box[2] - box[0] > LARGEST:  # none, or several instead of one
            sys.exit(f"compose.py: the font has no picture of {text}; install that of Debian 12")
        return picture.crop(box)

    @functools.cache
    def sprite(self, text, colour, extent, mirrored):
        """The emoji in a square of `extent` pixels, uint8 [height,width,4]."""
        picture = self.picture(text)
        if colour:
            picture = recoloured(picture, COLOURS[colour][1])
        scale = extent / max(picture.size)
        width, height = (max(1, int(side * scale + 0.5)) for side in picture.size)
        # Colours weighted by their opacity; one direction, then the other: Pillow's versions choose
        # different ones to begin with.
        picture = picture.convert("RGBa").resize((width, picture.height), Image.BICUBIC)
        picture = picture.resize((width, height), Image.BICUBIC).convert("RGBA")
        if mirrored:
            picture = picture.transpose(Image.FLIP_LEFT_RIGHT)
        return np.asarray(picture)

    def object(self, name, colour):
        own = f"{colour} {name}"
        base = own if own in self.text else OBJECTS[name][1]
        return Item(
            self.named(base),
            None if base == own else colour,
            name in MIRRORED_OBJECTS,
            (("object", name), ("colour", colour)),
            (colour, name),
        )

    def figure(self, name, tone, hair=None):
        emoji = f"{name}: {tone} skin tone" + (f", {hair}" if hair else "")
        is_a = (("figure", name), ("skin", tone)) + ((("hair", hair),) if hair else ())
        return Item(self.named(emoji), None, True, is_a, (name, tone, hair))

    def thing(self, name):
        group, mirrored, _ = self.things[name]
        return Item(self.named(name), None, mirrored, (("group", group),), (name,))


def recoloured(picture, colour):
    """The picture with the hue that prevails in it turned to `colour`.

    Shades stay shades and reflections stay white; areas of other hues, and grey ones, stay as they
    are. Sums are of whole numbers and all else is rounded alike everywhere.
    """
    pixels = np.asarray(picture).astype(np.float64)
    rgb, alpha = pixels[..., :3] / 255, pixels[..., 3]
    value, least = rgb.max(-1), rgb.min(-1)
    span = value - least
    some = np.maximum(span, 1e-9)
    saturation = np.where(value > 0, span / np.maximum(value, 1e-9), 0)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    hue = np.select(
        [span == 0, value == red, value == green],
        [0 * span, (green - blue) / some % 6, 2 + (blue - red) / some],
        4 + (red - green) / some,
    )  # 0 to 6
    weight = np.floor(saturation * value * alpha)
    bins = np.bincount(np.floor(hue * 6).astype(int).ravel() % 36, weight.ravel(), 36)
    around = bins + np.roll(bins, 1) + np.roll(bins, -1)
    distance = np.abs((hue - (int(around.argmax()) + 0.5) / 6 + 3) % 6 - 3)
    turned = np.clip((0.9 - distance) / 0.3, 0, 1) * np.clip(saturation / 0.1, 0, 1)
    typical = (turned == 1) & (alpha == 255) & (saturation > 0.3)
    middle_value, middle_saturation = np.median(value[typical]), np.median(saturation[typical])
    target = np.array(colour) / 255
    light = (value / middle_value)[..., None]
    lit = np.where(light <= 1, target * light, target + (1 - target) * np.clip(light - 1, 0, 1))
    pure = np.clip(saturation / middle_saturation, 0, 1)[..., None]
    new = lit * pure + value[..., None] * (1 - pure)
    turned = turned[..., None]
    mixed = np.floor((new * turned + rgb * (1 - turned)) * 255 + 0.5)
    return Image.fromarray(np.dstack([mixed, alpha]).astype(np.uint8), "RGBA")


# Captions


def noun_phrase(item, emoji, draws):
    """One of the phrases for an item, with its article."""
    if len(item.words) == 1:
        return draws.one_of(emoji.things[item.words[0]][2])
    if len(item.words) == 2:
        colour, name = item.words
        words = f"{draws.one_of(COLOURS[colour][0])} {draws.one_of(OBJECTS[name][0])}"
        return article(words)
    name, tone, hair = item.words
    who, tone = draws.one_of(FIGURES[name][0]), draws.one_of(TONES[tone])
    if hair is None:
        skinned = article(f"{tone}-skinned {without_article(who)}")
        return draws.one_of([f"{who} with {tone} skin", skinned])
    behind, before = draws.one_of(HAIR[hair][0]), HAIR[hair][1]
    return draws.one_of(
        [
            f"{who} with {tone} skin and {behind}",
            article(f"{tone}-skinned {without_article(who)} with {behind}"),
            article(f"{before} {without_article(who)} with {tone} skin"),
        ]
    )


def caption_of(scene, emoji, draws):
    """A caption in one of several word orders. One in five does not mention the background, except
    where the background alone sets a scene apart from those of training."""
    phrases = [noun_phrase(item, emoji, draws) for item in scene.items]
    what = draws.one_of([" beside ", " next to "]).join(phrases)
    background = scene.background
    needed = scene.kind == "thing" and scene.combinations()
    return draws.one_of(
        [
            f"{what} on {background}" if needed else what,
            f"{what} on {background}",
            f"{what} on {background}",
            f"{what} on a {background} background",
            f"a picture of {what} on {background}",
        ]
    )


def attributes_of(emoji):
    """The attributes that captions mention, each with the phrases of its classes."""
    objects = {
        name: [f"{c} {w}" for words, _ in COLOURS.values() for c in words for w in OBJECTS[name][0]]
        for name in OBJECTS
    }
    colours = {
        name: [f"{c} {w}" for c in words for nouns, _, _ in OBJECTS.values() for w in nouns]
        for name, (words, _) in COLOURS.items()
    }
    skin = {
        name: [phrase for word in words for phrase in (f"{word} skin", f"{word}-skinned")]
        for name, words in TONES.items()
    }
    figures = {name: list(map(without_article, words)) for name, (words, _) in FIGURES.items()}
    hair = {name: [*behind, before] for name, (behind, before) in HAIR.items()}
    groups = {
        group: [
            without_article(phrase)
            for of, _, phrases in emoji.things.values()
            for phrase in phrases
            if of == group
        ]
        for group in emoji.groups
    }
    grounds = {name: [f"on {name}", f"{name} background"] for name in BACKGROUNDS}
    return [
        Attribute("colour", colours),
        Attribute("object", objects),
        Attribute("skin", skin),
        Attribute("figure", figures),
        Attribute("hair", hair),
        Attribute("group", groups),
        Attribute("background", grounds),
    ]


# What is held out


def share_of(*words):
    """A number that stands for words: the same whatever else is drawn."""
    return zlib.crc32(" ".join(words).encode())


def held_out_background(thing):
    return list(BACKGROUNDS)[share_of(thing) % len(BACKGROUNDS)]


def is_held_out_pair(left, right):
    return share_of(left, right) % 7 == 0


@dataclasses.dataclass(frozen=True)
class Scene:
    kind: str
    items: tuple
    background: str

    def combinations(self):
        """Those of its combinations that training never shows."""
        held = []
        for item in self.items:
            if len(item.words) == 2 and OBJECTS[item.words[1]][2] == item.words[0]:
                held.append(" ".join(item.words))
            if len(item.words) == 3 and FIGURES[item.words[0]][1] == item.words[1]:
                held.append(f"{item.words[0]}, {item.words[1]} skin")
            if len(item.words) == 1 and held_out_background(item.words[0]) == self.background:
                held.append(f"{item.words[0]} on {self.background}")
        if self.kind == "pair" and is_held_out_pair(*(item.words[-1] for item in self.items)):
            held.append(" beside ".join(item.words[-1] for item in self.items))
        return held


def drawn_scene(split, emoji, draws):
    """A scene; of the test split, one with a combination that training never shows."""
    test = split == "test"
    at = draws.below(100)
    for kind, share in KINDS.items():
        if at < share:
            break
        at -= share
    background = draws.one_of(list(BACKGROUNDS))
    if kind == "object":
        name = draws.one_of(list(OBJECTS))
        held = OBJECTS[name][2]
        colour = held if test else draws.one_of([c for c in COLOURS if c != held])
        items = (emoji.object(name, colour),)
    elif kind == "figure":
        # Women and men twice as often, since their hair differs.
        name = draws.one_of([*FIGURES, "woman", "man"])
        held = FIGURES[name][1]
        tone = held if test else draws.one_of([t for t in TONES if t != held])
        items = (emoji.figure(name, tone, draws.one_of([None, *HAIR_OF.get(name, ())])),)
    elif kind == "thing":
        name = draws.one_of(list(emoji.things))
        held = held_out_background(name)
        background = held if test else draws.one_of([b for b in BACKGROUNDS if b != held])
        items = (emoji.thing(name),)
    else:
        items = beside_each_other(test, background, emoji, draws)
    return Scene(kind, items, background)


def beside_each_other(test, background, emoji, draws):
    """Two items of a pair; seen ones each, so that in the test split the pair alone is new."""
    things = [name for name in emoji.beside if held_out_background(name) != background]
    while True:
        left, right = (draws.one_of([list(OBJECTS), things][draws.below(2)]) for _ in range(2))
        if left != right and is_held_out_pair(left, right) == test:
            break
    return tuple(
        emoji.object(name, draws.one_of([c for c in COLOURS if c != OBJECTS[name][2]]))
        if name in OBJECTS
        else emoji.thing(name)
        for name in (left, right)
    )


# Pictures


def drawn_picture(scene, size, emoji, draws):
    """uint8 [size,size,3]: the items at a random size and place, mirrored where they may be."""
    canvas = np.empty((size, size, 3), np.uint32)
    canvas[:] = BACKGROUNDS[scene.background]
    pair = len(scene.items) == 2

    def between(least, most):  # in thirty-seconds of the picture
        least, most = (int(size * share / 32 + 0.5) for share in (least, most))
        return least + draws.below(most - least + 1)

    for i, item in enumerate(scene.items):
        extent = between(13, 15) if pair else between(22, 28)
        x = between(7.5, 8.5) + i * size // 2 if pair else between(14, 18)
        y = between(12, 20) if pair else between(14, 18)
        mirrored = item.mirrored and draws.below(2) == 1
        sprite = emoji.sprite(item.text, item.colour, extent, mirrored).astype(np.uint32)
        height, width = sprite.shape[:2]
        left = min(max(0, x - width // 2), size - width)
        top = min(max(0, y - height // 2), size - height)
        at = canvas[top : top + height, left : left + width]
        alpha = sprite[..., 3:]
        at[:] = (sprite[..., :3] * alpha + at * (255 - alpha) + 127) // 255
    return canvas.astype(np.uint8)


def composed(split, count, arguments, emoji, attributes, seen):
    """`count` different pictures: [(scene, caption, PNG file, {attribute: class})]."""
    pictures = []
    for i in range(count):
        for attempt in range(1000):
            draws = Draws("emoji", arguments.seed, split, i, attempt)
            scene = drawn_scene(split, emoji, draws)
            pixels = drawn_picture(scene, arguments.size, emoji, draws).tobytes()
            if pixels not in seen:
                break
        else:
            sys.exit(f"compose.py: {split}: after {i} there are no new pictures; ask for fewer")
        seen.add(pixels)
        assert bool(scene.combinations()) == (split == "test"), scene
        caption = caption_of(scene, emoji, draws)
        classes = classes_in(caption, scene, attributes)
        png = captioned.png(pixels, arguments.size, arguments.size)
        pictures.append((scene, caption, png, classes))
    return pictures


def classes_in(caption, scene, attributes):
    """{attribute: class index} as the caption mentions them, checked against the scene."""
    truths = [fact for item in scene.items for fact in item.is_a]
    truths.append(("background", scene.background))
    classes = {}
    for attribute in attributes:
        k = attribute.class_in(caption)
        if k is not None:
            assert (attribute.name, attribute.classes[k]) in truths, (caption, attribute.name)
            classes[attribute.name] = k
    return classes


def kind_of(scene, kinds):
    """The class of a single item among all objects, figures and groups; None for two items."""
    return kinds.index(scene.items[0].is_a[0][1]) if len(scene.items) == 1 else None


# Files


def write_class_archives(folder, pictures, attributes, emoji):
    kinds = sorted([*OBJECTS, *FIGURES, *emoji.groups], key=lambda kind: kind.replace(" ", "-"))

    def some(split, class_of):
        found = ((png, class_of(scene, classes)) for scene, _, png, classes in pictures[split])
        return [(png, k) for png, k in found if k is not None][: CLASS_PICTURES[split]]

    for attribute in attributes:
        name = attribute.name
        splits = {s: some(s, lambda scene, classes: classes.get(name)) for s in pictures}
        captioned.write_classes(folder / f"{name}.zip", attribute.classes, splits)
    splits = {s: some(s, lambda scene, classes: kind_of(scene, kinds)) for s in pictures}
    captioned.write_classes(folder / "kind.zip", kinds, splits)


def write_sheet(path, pictures, size, columns=10, rows=8):
    """A sheet of the first pictures, enlarged, each with its caption below."""
    side, text = 96 // size * size or size, 44
    sheet = Image.new("RGB", (columns * (side + 24), rows * (side + text)), "#ddd")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for i, (_, caption, png, _) in enumerate(pictures[: columns * rows]):
        at = ((i % columns) * (side + 24) + 4, (i // columns) * (side + text) + 4)
        sheet.paste(Image.open(io.BytesIO(png)).resize((side, side), Image.NEAREST), at)
        lines = [""]
        for word in caption.split():
            longer = f"{lines[-1]} {word}".strip()
            lines = lines[:-1] + [longer] if len(longer) <= side // 5 else lines + [word]
        below = (at[0], at[1] + side + 2)
        pen.multiline_text(below, "\n".join(lines[:3]), fill="black", font=font, spacing=0)
    sheet.save(path)


def versions(arguments):
    """What the pictures were made of."""

    def package(name):
        try:
            asked = ["dpkg-query", "-W", "-f=${Version}", name]
            return subprocess.run(asked, capture_output=True, text=True).stdout or None
        except OSError:
            return None  # not Debian

    made_of = {
        "font": arguments.font,
        "names": arguments.names,
        "compose.py": __file__,
        "captioned.py": captioned.__file__,
        "things.txt": HERE / "things.txt",
    }
    return {
        "packages": {name: package(name) for name in PACKAGES},
        "pillow": PIL.__version__,
        "libraries": {name: features.version(name) for name in ("freetype2", "raqm", "harfbuzz")},
        "numpy": np.__version__,
        "sha256": {name: captioned.sha256_of(path) for name, path in made_of.items()},
    }


def parsed_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path, help="where the archives are written")
    parser.add_argument("--size", type=int, default=32, help="side of the pictures (32)")
    parser.add_argument("--count", type=int, default=40000, help="pictures of train (40000)")
    parser.add_argument("--test", type=int, default=6000, help="pictures of test (6000)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn by chance (1)")
    parser.add_argument("--font", default=FONT, help=FONT)
    parser.add_argument("--names", default=NAMES, help=NAMES)
    arguments = parser.parse_args()
    if not 16 <= arguments.size <= 128:
        parser.error("--size: from 16 to 128, the size of the font's pictures")
    if arguments.count < 1 or arguments.test < 1:
        parser.error("--count and --test: 1 or more")
    for path, package in zip((arguments.font, arguments.names), PACKAGES):
        if not pathlib.Path(path).is_file():
            sys.exit(f"compose.py: {path} is missing; apt-get install {package}")
    if not features.check("raqm"):
        sys.exit(
            "compose.py: this Pillow has no Raqm, without which emoji cannot be joined; "
            "apt-get install python3-pil, or pip install pillow"
        )
    return arguments


def main():
    arguments = parsed_arguments()
    emoji = Emoji(arguments.names, arguments.font)
    attributes = attributes_of(emoji)
    folder, seen = arguments.folder, set()
    (folder / "classes").mkdir(parents=True, exist_ok=True)
    pictures = {
        split: composed(split, count, arguments, emoji, attributes, seen)
        for split, count in (("train", arguments.count), ("test", arguments.test))
    }
    captioned.write_captioned(
        folder / "images.zip",
        {s: [(png, caption) for _, caption, png, _ in found] for s, found in pictures.items()},
    )
    write_class_archives(folder / "classes", pictures, attributes, emoji)
    captioned.write_attributes(folder / "attributes.json", attributes)
    write_sheet(folder / "sheet.png", pictures["train"], arguments.size)
    held_out = {c for scene, _, _, _ in pictures["test"] for c in scene.combinations()}
    archives = ["images.zip", "classes/kind.zip", *(f"classes/{a.name}.zip" for a in attributes)]
    captioned.write_json(
        folder / "about.json",
        {
            "size": arguments.size,
            "seed": arguments.seed,
            "pictures": {split: len(found) for split, found in pictures.items()},
            "captions": {split: len({p[1] for p in found}) for split, found in pictures.items()},
            "made_of": versions(arguments),
            "sha256": {name: captioned.sha256_of(folder / name) for name in archives},
            "held_out": sorted(held_out),
        },
    )
    print(
        f"{folder / 'images.zip'}: {arguments.count} pictures for training, {arguments.test} of "
        f"combinations that training never shows"
    )


if __name__ == "__main__":
    main()
