"""Writes tests/golden/clip/: a small random CLIPModel as transformers writes it, and its outputs
for small images and captions.

    python scripts/make_clip_golden.py

Needs transformers, torch, numpy, pillow and safetensors. The tokenizer is
tests/golden/clip_tokenizer. Everything is computed in float64.
"""

import json
import pathlib
import shutil
import tempfile

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

ROOT = pathlib.Path(__file__).parents[1]
TOKENIZER, OUT = ROOT / "tests/golden/clip_tokenizer", ROOT / "tests/golden/clip"
CAPTIONS = ["a photo of a cat", "", "the dog's house!", "word " * 100]
SIZES = [(32, 32), (45, 60), (70, 33), (20, 24)]  # rows and columns
SIDE = 32


def processor():
    return CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )


def main():
    size = len(json.loads((TOKENIZER / "vocab.json").read_text()))
    torch.manual_seed(0)
    tower = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2)
    config = CLIPConfig(
        text_config=dict(
            vocab_size=size,
            eos_token_id=size - 1,
            bos_token_id=size - 2,
            pad_token_id=size - 1,
            **tower,
        ),
        vision_config=dict(image_size=SIDE, patch_size=8, **{**tower, "hidden_size": 32}),
        projection_dim=20,
    )
    model = CLIPModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.05 * torch.randn_like(
            parameter
        )  # biases and norms are initialised to zeros and ones
    shutil.rmtree(OUT, ignore_errors=True)
    model.save_pretrained(OUT)
    for extra in OUT.glob("generation_config.json"):
        extra.unlink()
    model.double()
    answers = {}
    random = np.random.default_rng(0)
    for i, (rows, columns) in enumerate(SIZES):
        smooth = random.integers(0, 256, (rows // 8 + 1, columns // 8 + 1, 3), dtype=np.uint8)
        pixels = np.array(Image.fromarray(smooth).resize((columns, rows), Image.BILINEAR))
        seen = processor()(Image.fromarray(pixels), return_tensors="pt").pixel_values
        answers[f"pixels {i}"], answers[f"seen {i}"] = torch.tensor(pixels), seen
        pooled = model.vision_model(seen.double()).pooler_output
        answers[f"image {i}"] = torch.nn.functional.normalize(
            model.visual_projection(pooled), dim=-1
        ).float()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(TOKENIZER, folder, dirs_exist_ok=True)
        tokenizer = CLIPTokenizer.from_pretrained(folder, pad_token="<|endoftext|>")
    ids = tokenizer(
        CAPTIONS, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    pooled = model.text_model(ids).pooler_output
    answers["texts"] = torch.nn.functional.normalize(model.text_projection(pooled), dim=-1).float()
    save_file(
        {name: tensor.contiguous() for name, tensor in answers.items()},
        OUT / "answers.safetensors",
        metadata={"captions": json.dumps(CAPTIONS)},
    )


if __name__ == "__main__":
    main()
