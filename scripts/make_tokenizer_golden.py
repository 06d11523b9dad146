"""Writes tests/golden/clip_tokenizer/: a small vocabulary trimmed from CLIP's, and the tokens of
prompts by transformers' CLIPTokenizer with it.

    python scripts/make_tokenizer_golden.py                # needs open-clip-torch and transformers
    python scripts/make_tokenizer_golden.py --full DIR     # the whole vocabulary into DIR, to
                                                           # compare by hand

CLIP's merges come from open_clip's wheel (bpe_simple_vocab_16e6.txt.gz); the trimmed vocabulary
contains the 512 byte tokens and the first merges.
"""

import gzip
import json
import pathlib
import sys
import warnings

import open_clip
from transformers import CLIPTokenizer

PROMPTS = [
    "",
    "a photo of an astronaut riding a horse on mars",
    "  Tabs\tand\n\nnew   lines  ",
    "it's they're we'll I'd don't can't I'm you've",
    "HELLO World ÀÉÎ ß ẞ İstanbul ΣΊΣΥΦΟΣ",
    "e\u0301 and \u00e9",
    "1234 ½ ² Ⅷ ٣",
    "猫と犬 кот ‏שלום नमस्ते",
    "😀👩‍👩‍👧‍👦 🏳️‍🌈!!!",
    "<|startoftext|>inside<|endoftext|>",
    "x" * 300,
    "very long " * 100,
    "a!b ! wow!!",
    "\u00a0\u2003thin\u2009space\u3000",
    "don’t 'sx ''re",
    "\x00\x07bell",
    "<|endoftext",
    "ﬁ ǅ ǈ 𝔘𝔫𝔦 ᾈ",
    "under_score-and-dash/slash",
    "🇩🇪 #1 @home $5.00",
]


def letters():
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in kept] + [chr(256 + i) for i in range(256 - len(kept))]


def vocabulary(merge_count):
    path = pathlib.Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.open(path).read().decode().split("\n")[1 : 49152 - 256 - 2 + 1][:merge_count]
    tokens = (
        letters()
        + [c + "</w>" for c in letters()]
        + [m.replace(" ", "") for m in merges]
        + ["<|startoftext|>", "<|endoftext|>"]
    )
    return {token: i for i, token in enumerate(tokens)}, merges


def write(folder, merge_count, pad):
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = vocabulary(merge_count)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": pad,
        "unk_token": "<|endoftext|>",
        "model_max_length": 77,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    pairs = [tuple(m.split(" ")) for m in merges]
    return CLIPTokenizer(vocab=vocab, merges=pairs, **config)


def main():
    warnings.simplefilter("ignore")
    if "--full" in sys.argv:
        write(pathlib.Path(sys.argv[-1]), 49152, "<|endoftext|>").save_pretrained(
            pathlib.Path(sys.argv[-1]) / "as_json"
        )
        return
    folder = pathlib.Path(__file__).parents[1] / "tests/golden/clip_tokenizer"
    answers = {}
    for name, pad in (("endoftext", "<|endoftext|>"), ("exclamation", "!")):
        tokenizer = write(folder, 700, pad)
        answers[name] = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=77)[
            "input_ids"
        ]
    write(folder, 700, "<|endoftext|>").backend_tokenizer.save(
        str(folder / "tokenizer.json"), pretty=False
    )
    lines = [
        json.dumps({"prompt": p, **{n: answers[n][i] for n in answers}})
        for i, p in enumerate(PROMPTS)
    ]
    (folder / "answers.json").write_text("[" + ",\n".join(lines) + "]\n")


main()
