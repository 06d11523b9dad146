#!/usr/bin/env python3
"""Writes the cost table of docs/recipes.md from dry runs. Needs neither data nor a GPU.

    python3 scripts/recipe_costs.py

ATELIER sets another program than build/release/atelier. Needs only the standard library.
"""

import json
import os
import subprocess

from figures import ROOT, fill_markers

PAGE = ROOT / "docs/recipes.md"
PROGRAM = os.environ.get("ATELIER", str(ROOT / "build/release/atelier"))
ROWS = [
    ("imagenet64-msd4-pairs", []),
    ("imagenet64-msd4-dm", []),
    ("imagenet64-msd4-adm", []),
    ("imagenet64-msd4-small", []),
    ("imagenet64-msd4-smaller", []),
    ("imagenet64-single-adm", []),
    ("cifar10-msd", []),
    ("cifar10-single", []),
    ("sd15-msd4-dm", []),
    ("sd15-msd4-dm", ["students.lora_rank=64"]),
    ("sd15-msd4-adm", []),
    ("sd15-msd4-small", []),
]
COLUMNS = [
    "config",
    "stage",
    "length",
    "micro-batch",
    "memory, GiB",
    "with activation checkpointing",
    "PFLOP per step",
    "images seen per student",
    "EFLOP per student",
    "EFLOP in all",
]


def dry_run(config, overrides):
    command = [PROGRAM, "run", f"configs/{config}.toml", "--dry-run", "--json"] + overrides
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def three_digits(value):
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def row(name, stage):
    work = stage["flops_a_step"] * stage["steps"]
    length = f"{stage['steps']:,} " + ("generator updates" if stage["fake_updates"] else "steps")
    seen = (stage["real_images"] + stage["generated_images"]) / 1e6
    memory = [
        stage["memory_bytes_without_activation_checkpointing"],
        stage["memory_bytes_with_activation_checkpointing"],
    ]
    return [
        name,
        stage["stage"].upper(),
        length,
        f"{stage['micro_batch']} of {stage['batch']}",
        *(f"{size / 2**30:.1f}" for size in memory),
        f"{stage['flops_a_step'] / 1e15:.3g}",
        f"{three_digits(seen)} M",
        three_digits(work / 1e18),
        three_digits(work * stage["times"] / 1e18),
    ]


def table():
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for config, overrides in ROWS:
        name = ", ".join(f"`{word}`" for word in [config] + overrides)
        for stage in dry_run(config, overrides)["stages"]:
            lines.append("| " + " | ".join(row(name, stage)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    fill_markers(PAGE, {"recipe costs": table()})
