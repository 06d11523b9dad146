"""Writes tests/core/images/odd_*: CMYK JPEGs, rotated images (EXIF), WebPs and transparent images,
and odd.json with Pillow's pixels of them.

    python scripts/make_image_golden.py        (needs Pillow and numpy)

Pillow's pixels come from Image.open, ImageOps.exif_transpose, pasting on white by the alpha
channel, and convert("RGB") for CMYK.
"""

import io
import json
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

FOLDER = pathlib.Path(__file__).parent.parent / "tests/core/images"
HEIGHT, WIDTH = 4, 6


def picture(channels):
    y, x, c = np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), np.arange(channels), indexing="ij")
    return ((40 * y + 25 * x + 60 * c) % 256).astype(np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def saved(image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def exif(orientation, big=False):
    order = ">" if big else "<"
    return (
        (b"MM\0*" if big else b"II*\0")
        + struct.pack(order + "IHHHI", 8, 1, 0x112, 3, 1)
        + struct.pack(order + "HH", orientation, 0)
        + b"\0\0\0\0"
    )


def exif_behind_pixels(png, orientation):
    return png[:-12] + chunk(b"eXIf", exif(orientation, big=True)) + png[-12:]


files = {}
cmyk = saved(Image.frombytes("CMYK", (WIDTH, HEIGHT), picture(4).tobytes()), "JPEG", quality=95)
place = cmyk.index(b"\xff\xee\x00\x0eAdobe")
files["odd_cmyk_adobe.jpg"] = cmyk
files["odd_cmyk_plain.jpg"] = cmyk[:place] + cmyk[place + 16 :]
files["odd_ycck.jpg"] = cmyk[: place + 15] + b"\2" + cmyk[place + 16 :]
colour = Image.fromarray(picture(3))
for orientation in range(1, 9):
    files[f"odd_exif{orientation}.jpg"] = saved(
        colour, "JPEG", quality=95, exif=b"Exif\0\0" + exif(orientation, big=orientation % 2 == 0)
    )
files["odd_exif6.png"] = saved(colour, "PNG", exif=exif(6))
files["odd_exif_behind_pixels.png"] = exif_behind_pixels(saved(colour, "PNG"), 8)
files["odd_exif6.webp"] = saved(colour, "WEBP", lossless=True, exif=exif(6))
files["odd_lossy.webp"] = saved(colour, "WEBP", quality=90)
transparent = Image.fromarray(picture(4), "RGBA")
files["odd_alpha.webp"] = saved(transparent, "WEBP", lossless=True, exact=True)
files["odd_alpha.png"] = saved(transparent, "PNG")
files["odd_grey_alpha.png"] = saved(Image.fromarray(picture(2), "LA"), "PNG")
palette = colour.quantize(8)
files["odd_palette_transparent.png"] = saved(palette, "PNG", transparency=bytes([0, 128, 255]))
files["odd_grey_key.png"] = saved(
    Image.fromarray(picture(1)[:, :, 0]), "PNG", transparency=int(picture(1)[1, 2, 0])
)
files["odd_animated.webp"] = saved(
    transparent,
    "WEBP",
    lossless=True,
    exact=True,
    save_all=True,
    append_images=[colour.convert("RGBA")],
)


def as_pillow_reads(file):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
    if image.mode == "CMYK":
        return image.convert("RGB")
    if image.mode == "L" and "transparency" not in image.info:
        return image
    grey = image.mode in ("L", "LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        ground.paste(image, (0, 0), image)
        image = ground
    return image.convert("L" if grey else "RGB")


expected = []
for name, file in files.items():
    (FOLDER / name).write_bytes(file)
    made = np.asarray(as_pillow_reads(file))
    height, width = made.shape[:2]
    expected.append(
        {
            "file": name,
            "height": height,
            "width": width,
            "channels": 1 if made.ndim == 2 else 3,
            "pixels": made.ravel().tolist(),
        }
    )
(FOLDER / "odd.json").write_text(
    "[\n" + ",\n".join(json.dumps(one, separators=(",", ":")) for one in expected) + "\n]\n"
)
