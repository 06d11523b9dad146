#!/usr/bin/env python3
"""Writes docs/choosing-k.json, the trials that `atelier plan` goes by, from docs/results.json.

    python3 scripts/choosing_k.py          # after make study
    python3 scripts/choosing_k.py --check  # whether the file is what this would write

Runs of one group, one width of students and one total number of generated samples are a trial: the
numbers of students compete, each with its best experiment (batch, pairs, partition), and the seeds
are those that all of them have. Needs only the standard library.
"""

import argparse
import collections
import json
import pathlib
import random
import shlex
import sys
import tomllib

import toy_sets

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS, TRIALS = ROOT / "docs/results.json", ROOT / "docs/choosing-k.json"
FEWEST_SEEDS = 2
# Of a group's runs: what they are judged by (its name in the results, for people, a factor), and
# what a config calls the width of its network.
POINTS = ("strays", "strays %", 100), "hidden"
IMAGES = ("feature_distance", "classifier-feature distance", 1), "model_channels"


def conditions_of(group):
    """The number of classes of a group's data."""
    if group.startswith("narrow-"):
        stream = random.Random(0)
        point = toy_sets.SETS[group.removeprefix("narrow-")]
        return 1 + max(point(stream)[3] for _ in range(5000))
    known = {"toy": 8, "fashion": 10}
    if group not in known:
        sys.exit(f"{__file__}: say in conditions_of how many classes the data of {group} have")
    return known[group]


def settings_of(command):
    """The settings of a run's command: its config's, and the words after it."""
    words = shlex.split(command)
    config = next(word for word in words if word.endswith(".toml"))
    settings = tomllib.loads((ROOT / config).read_text())
    for word in words[words.index(config) + 1 :]:
        key, _, value = word.partition("=")
        if not value or "." not in key:
            continue
        table, name = key.split(".", 1)
        try:
            settings.setdefault(table, {})[name] = json.loads(value)
        except json.JSONDecodeError:
            settings.setdefault(table, {})[name] = value
    return settings


def samples_of(run):
    """What the trunk and all students generate for their updates in DM and ADM."""
    settings = settings_of(run["command"])
    stages = [(name.split("/")[-1], stage["steps"]) for name, stage in run["stages"].items()]
    return sum(
        steps * settings[kind]["batch"] for kind, steps in stages if kind in ("dm", "adm")
    )


def mean(values):
    """Their mean."""
    return sum(values) / len(values)


def trials_of(results):
    """The trials of a study's results, sorted."""
    # values[group, width, teacher's width, samples][K][experiment, batch][seed]
    values = collections.defaultdict(
        lambda: collections.defaultdict(lambda: collections.defaultdict(dict))
    )
    kinds = {}
    for run in results["runs"]:
        settings = settings_of(run["command"])
        if any(settings.get("trunk", {}).values()):
            continue  # the same total work, but not the same samples
        kind = POINTS if "strays" in run["metrics"] else IMAGES
        (metric, _, factor), width_key = kind
        teacher = settings["network"][width_key]
        widths = settings.get("students", {}).get("widths") or [teacher]
        if metric not in run["metrics"] or len(set(widths)) > 1:
            continue
        kinds[run["group"]] = kind
        key = run["group"], widths[0], teacher, samples_of(run)
        experiment = run["experiment"], settings["dm"]["batch"]
        values[key][settings["partition"]["students"]][experiment][run["seed"]] = (
            factor * run["metrics"][metric]
        )
    trials = []
    for (group, width, teacher, samples), by_students in sorted(values.items()):
        chosen = {}
        for students, experiments in sorted(by_students.items()):
            enough = {e: v for e, v in experiments.items() if len(v) >= FEWEST_SEEDS}
            if enough:
                chosen[students] = min(enough.items(), key=lambda item: mean(item[1].values()))
        seeds = set.intersection(*(set(v) for _, v in chosen.values())) if chosen else set()
        if len(chosen) < 2 or len(seeds) < FEWEST_SEEDS:
            continue
        trials.append(
            {
                "set": group,
                "samples": "points" if kinds[group] is POINTS else "images",
                "measure": kinds[group][0][1],
                "width": width,
                "teacher_width": teacher,
                "samples_per_condition": samples / conditions_of(group),
                "seeds": sorted(seeds),
                "experiments": {str(k): name for k, ((name, _), _) in chosen.items()},
                "batch": {str(k): batch for k, ((_, batch), _) in chosen.items()},
                "values": {
                    str(k): [float(f"{found[seed]:.4g}") for seed in sorted(seeds)]
                    for k, (_, found) in chosen.items()
                },
            }
        )
    return trials


def text_of(trials):
    """The file's text: one trial per line."""
    lines = ",\n".join("  " + json.dumps(trial) for trial in trials)
    return '{"trials": [\n' + lines + "\n]}\n" if trials else '{"trials": []}\n'


def main():
    """Writes or checks the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail unless the file is up to date")
    arguments = parser.parse_args()
    text = text_of(trials_of(json.loads(RESULTS.read_text())))
    if not arguments.check:
        TRIALS.write_text(text)
    elif TRIALS.read_text() != text:
        sys.exit(f"{TRIALS}: is not what {RESULTS} gives; run: python3 scripts/choosing_k.py")


if __name__ == "__main__":
    main()
