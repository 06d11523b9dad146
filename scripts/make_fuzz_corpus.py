"""Writes tests/fuzz/corpus/: small files for every reader of untrusted files, valid ones in many
variants, and some that are broken in known ways (bad-*).

    python scripts/make_fuzz_corpus.py        (needs numpy and pillow)
"""

import gzip
import io
import json
import pathlib
import pickle
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image

OUT = pathlib.Path(__file__).parents[1] / "tests/fuzz/corpus"
RANDOM = np.random.default_rng(0)


def put(reader, name, content):
    folder = OUT / reader
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def saved(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def picture(mode, side=12):
    smooth = np.add.outer(np.arange(side), 2 * np.arange(side)) * (255 // (3 * side))
    rgb = np.stack([smooth, smooth[::-1], smooth.T], -1).astype("u1")
    return Image.fromarray(rgb).convert(mode)


def images():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        put("png", f"{mode}.png", saved(lambda f: picture(mode).save(f, "png")))
    wide = np.arange(64, dtype="u2").reshape(8, 8) * 1000
    put("png", "grey16.png", saved(lambda f: Image.fromarray(wide).save(f, "png")))
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("prompt", "a boat")
    text.add_itxt("prompt2", "ein Schiff über Wasser", zip=True)
    put("png", "text.png", saved(lambda f: picture("RGB").save(f, "png", pnginfo=text)))
    exif = Image.Exif()
    exif[0x0112] = 6
    put("png", "turned.png", saved(lambda f: picture("RGB").save(f, "png", exif=exif)))
    huge = bytearray(saved(lambda f: picture("L").save(f, "png")))
    huge[16:24] = struct.pack(">II", 16000, 16000)
    put("png", "bad-huge.png", bytes(huge))
    whole = saved(lambda f: picture("L").save(f, "png"))
    put(
        "png", "bad-long-chunk.png", whole[:33] + struct.pack(">I", 14 << 20) + b"tEXt" + whole[33:]
    )
    put("jpeg", "bad-empty.jpg", b"")
    for mode in ("L", "RGB", "CMYK"):
        put("jpeg", f"{mode}.jpg", saved(lambda f: picture(mode).save(f, "jpeg")))
    put(
        "jpeg", "progressive.jpg", saved(lambda f: picture("RGB").save(f, "jpeg", progressive=True))
    )
    put(
        "jpeg",
        "turned.jpg",
        saved(lambda f: picture("RGB").save(f, "jpeg", exif=exif, subsampling=2)),
    )
    # Without its container a stream of a few bytes may claim 44 million pixels.
    huge = struct.pack("<BI", 0x2F, 8190 | 5460 << 14)
    put("webp", "bad-bare-lossless.webp", huge + bytes(range(235)))
    put("jpeg", "bad-cut.jpg", saved(lambda f: picture("RGB").save(f, "jpeg"))[:-60])


def zipped(entries, comment=b"", kind=zipfile.ZIP_DEFLATED):
    def write(file):
        with zipfile.ZipFile(file, "w", kind) as archive:
            archive.comment = comment
            for name, content in entries.items():
                archive.writestr(zipfile.ZipInfo(name), content, compress_type=kind)

    return saved(write)


def archives():
    entries = {
        "a/0.txt": b"one",
        "a/1.txt": b"two" * 50,
        "dataset.json": b'{"labels": null}',
        "b/": b"",
    }
    put("zip", "deflated.zip", zipped(entries))
    put("zip", "stored.zip", zipped(entries, kind=zipfile.ZIP_STORED))
    put(
        "zip",
        "comment.zip",
        zipped(entries, comment=b"a comment with PK\x05\x06 in it" + bytes(22)),
    )
    put("zip", "names.zip", zipped({"gr\u00fc\u00df.txt": b"x", "__MACOSX/._a": b"y"}))

    def zip64(file):
        with (
            zipfile.ZipFile(file, "w") as archive,
            archive.open("a.txt", "w", force_zip64=True) as entry,
        ):
            entry.write(b"sixty-four")

    put("zip", "zip64.zip", saved(zip64))
    put("zip", "bad-leaves.zip", zipped({"../x": b"1"}))

    for form, name in (
        (tarfile.USTAR_FORMAT, "ustar"),
        (tarfile.GNU_FORMAT, "gnu"),
        (tarfile.PAX_FORMAT, "pax"),
    ):

        def write(file):
            with tarfile.open(fileobj=file, mode="w", format=form) as archive:
                for path, content in (
                    ("a.png", b"image"),
                    ("a.cls", b"3"),
                    ("d/" + "x" * (90 if name == "ustar" else 120), b"long name"),
                ):
                    info = tarfile.TarInfo(path)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
                link = tarfile.TarInfo("b.png")
                link.type, link.linkname = tarfile.LNKTYPE, "a.png"
                archive.addfile(link)

        content = saved(write)
        put("tar", f"{name}.tar", content[: len(content.rstrip(b"\0")) // 512 * 512 + 1536])


def arrays():
    put(
        "npz",
        "plain.npz",
        saved(
            lambda f: np.savez(
                f, arr_0=RANDOM.integers(0, 255, (2, 3, 3, 1)).astype("u1"), labels=np.arange(2)
            )
        ),
    )
    put(
        "npz",
        "packed.npz",
        saved(lambda f: np.savez_compressed(f, mu=np.zeros(4), sigma=np.eye(4, dtype="f4"))),
    )
    put("npz", "bad-object.npz", saved(lambda f: np.savez(f, x=np.array([{}, 1], dtype=object))))
    for dtype in ("f4", "f8", "i8", "u1"):
        put(
            "npy",
            f"{dtype}.npy",
            saved(lambda f: np.save(f, np.arange(6).reshape(2, 3).astype(dtype))),
        )
    put("npy", "bad-fortran.npy", saved(lambda f: np.save(f, np.asfortranarray(np.eye(3)))))

    def tensors(entries, metadata=None):
        header, body = {"__metadata__": metadata} if metadata else {}, b""
        for name, (dtype, shape, content) in entries.items():
            header[name] = {
                "dtype": dtype,
                "shape": shape,
                "data_offsets": [len(body), len(body) + len(content)],
            }
            body += content
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + body

    put(
        "safetensors",
        "two.safetensors",
        tensors({"points": ("F32", [2, 2], bytes(16)), "labels": ("I64", [2], bytes(16))}),
    )
    put(
        "safetensors",
        "half.safetensors",
        tensors({"w": ("BF16", [3], bytes(6)), "e": ("F16", [0, 4], b"")}, {"format": "pt"}),
    )
    put("safetensors", "bad-header.safetensors", struct.pack("<Q", 2**60) + b"{}")

    images = struct.pack(">IIII", 0x803, 2, 3, 3) + bytes(range(18))
    labels = struct.pack(">II", 0x801, 4) + bytes(4)
    for name, content in (("images", images), ("labels", labels)):
        put("idx", f"{name}.idx", content)
        put("idx", f"{name}.gz", gzip.compress(content, mtime=0))
    put("idx", "bad-promise.idx", struct.pack(">IIII", 0x803, 2**31, 4000, 4000) + bytes(8))


class Network:
    def __init__(self):
        self.state = {"weights": [1.5, 2], "name": "x"}


def texts():
    value = {
        "a": [1, 2.5, None, True, "text", b"bytes"],
        "b": (3, {"c": -1}),
        "c": {1, 2},
        "big": 2**70 // 3 % 2**60,
    }
    for protocol in (2, 3, 4, 5):
        put("pickle", f"protocol{protocol}.pkl", pickle.dumps(value, protocol=protocol))
    put("pickle", "object.pkl", pickle.dumps(Network(), protocol=4))
    put("pickle", "bad-call.pkl", b"cos\nsystem\n(S'echo'\ntR.")
    put(
        "toml",
        "plain.toml",
        b'whole = 3\ntext = "a # b"\nwholes = [1, 2,\n 3]\n[table]\nreal = 1e-3\nflag = true\n'
        b'choice = "two"\nreals = [1, 2.5]\n',
    )
    put(
        "toml",
        "dotted.toml",
        (
            "\ufefftable.real = 4 # four\ntable.\"choice\" = 'one'\n"
            'texts = ["ü", """two\nlines"""]\n'
        ).encode(),
    )
    put("toml", "bad-key.toml", b"hole = 3\n")
    put("toml", "bad-letter.toml", "ü = 1\n".encode())
    put(
        "json",
        "object.json",
        json.dumps({"a": [1, -2.5e3, True, None], "b": {"c": "\u00fc\n\U0001f600"}}).encode(),
    )
    put("json", "escaped.json", rb'[{"x": "\u00e9\ud83d\ude00\\"}, [], {}, 0, "1e999"]')
    put("json", "bad-deep.json", b"[" * 500)
    put("json", "bad-twice.json", b'{"a": 1, "a": 2}')
    put("text", "prompts.txt", "a boat at dawn\r\nÄpfel & Öl\n\n🩰 don't 12,345\n".encode())
    put("text", "keys.txt", b"\xef\xbb\xbf# keys\nkey-number-one\nkey\n")


def main():
    images()
    archives()
    arrays()
    texts()


if __name__ == "__main__":
    main()
