#!/usr/bin/env python3
"""Draws docs/images/frontier.svg from docs/results.json: strays of one and of four narrow students
against the samples that their training generates in all. Needs matplotlib (scripts/setup.sh bench).

    python3 scripts/frontier.py
"""

import collections
import json
import pathlib
import statistics

import matplotlib
from choosing_k import samples_of, settings_of

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "atelier"  # equal figures, equal file
import matplotlib.pyplot as plt

ROOT = pathlib.Path(__file__).resolve().parents[1]
SETS = {"spirals": "two spirals", "modes": "36 modes", "rings": "four rings"}
SERIES = {
    "K=1": ("#9a3412", "o", "one student"),
    "K=4": ("#1d4ed8", "s", "four students, each alone"),
    "trunk": ("#047857", "^", "four students from a trunk"),
}
NARROW = 8


def points_of(runs, group):
    """Strays in percent by series, samples in thousands and batch: one number a seed."""
    found = collections.defaultdict(lambda: collections.defaultdict(dict))
    for run in runs:
        settings = settings_of(run["command"])
        if run["group"] != group or settings["students"]["widths"] != [NARROW]:
            continue
        series = "trunk" if settings.get("trunk") else f"K={run['students']}"
        thousands = round(samples_of(run) / 1000)
        by_seed = found[series][thousands].setdefault(settings["dm"]["batch"], {})
        by_seed[run["seed"]] = 100 * run["metrics"]["strays"]
    return found


def draw(axis, runs, name):
    for series, (colour, marker, label) in SERIES.items():
        at = points_of(runs, f"narrow-{name}").get(series, {})
        best = {  # of the batches that were tried
            samples: min(batches.values(), key=lambda seeds: statistics.mean(seeds.values()))
            for samples, batches in at.items()
        }
        places = sorted(best)
        axis.plot(
            places,
            [statistics.mean(best[place].values()) for place in places],
            color=colour,
            marker=marker,
            label=label,
            linewidth=1.6,
        )
        for place in places:
            axis.scatter([place] * len(best[place]), best[place].values(), color=colour, s=7,
                         alpha=0.5)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks([100, 400, 1600, 6500], ["0.1 M", "0.4 M", "1.6 M", "6.6 M"])
    axis.set_yticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
    axis.minorticks_off()
    axis.set_ylim(0.5, 60)
    axis.set_title(SETS[name], fontsize=10)
    axis.set_xlabel("samples generated in training, in all", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(True, linewidth=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def main():
    runs = json.loads((ROOT / "docs/results.json").read_text())["runs"]
    figure, axes = plt.subplots(1, len(SETS), figsize=(10.5, 3.6), sharey=True)
    for axis, name in zip(axes, SETS):
        draw(axis, runs, name)
    axes[0].set_ylabel("strays, % of points (log scale)", fontsize=8)
    axes[1].legend(fontsize=8, loc="lower left")
    figure.tight_layout()
    path = ROOT / "docs/images/frontier.svg"
    figure.savefig(path, metadata={"Date": None})
    print(path)


if __name__ == "__main__":
    main()
