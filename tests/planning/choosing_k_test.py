#!/usr/bin/env python3
"""Tests of scripts/choosing_k.py, and that docs/choosing-k.json is what it writes.

python3 tests/planning/choosing_k_test.py
"""

import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/choosing_k.py"
sys.path.insert(0, str(SCRIPT.parent))

import choosing_k  # noqa: E402


def run(experiment, seed, strays, words, group="toy"):
    """A run as docs/results.json has it."""
    command = f"build/release/atelier run configs/study-toy.toml seed={seed} {words}"
    settings = choosing_k.settings_of(command)
    return {
        "group": group,
        "experiment": experiment,
        "seed": seed,
        "command": command,
        "metrics": {"strays": strays},
        "stages": {
            f"{student}/{kind}": {"steps": settings[kind]["steps"]}
            for student in range(settings["partition"]["students"])
            for kind in ("tsm", "dm", "adm")
        },
    }


ONE = "partition.students=1 dm.steps=1200 adm.steps=400"
FOUR = "partition.students=4"
NARROW = "'students.widths=[8]'"


class Trials(unittest.TestCase):
    def test_compare_the_best_experiments_of_equal_samples(self):
        runs = [run("k1-x4", s, 0.02 + s / 1000, ONE) for s in range(3)]
        runs += [run("k4", s, 0.05, FOUR) for s in range(3)]
        small = FOUR + " dm.steps=1200 dm.batch=64 adm.steps=400 adm.batch=64"
        runs += [run("k4-small-batch", s, 0.01, small) for s in range(2)]
        (trial,) = choosing_k.trials_of({"runs": runs})
        self.assertEqual(trial["experiments"], {"1": "k1-x4", "4": "k4-small-batch"})
        self.assertEqual(trial["batch"], {"1": 256, "4": 64})
        self.assertEqual(trial["seeds"], [0, 1], "those that both have")
        self.assertEqual(trial["values"], {"1": [2.0, 2.1], "4": [1.0, 1.0]})
        self.assertEqual(trial["samples_per_condition"], 1600 * 256 / 8)
        self.assertEqual((trial["width"], trial["teacher_width"]), (64, 64))

    def test_of_other_samples_widths_or_groups_are_no_trials_together(self):
        runs = [run("k1", s, 0.02, "partition.students=1") for s in range(3)]
        runs += [run("k4", s, 0.05, FOUR) for s in range(3)]
        runs += [run("k1-narrow", s, 0.02, ONE + " " + NARROW) for s in range(3)]
        runs += [run("k1-x4", s, 0.02, ONE, "narrow-rings") for s in range(3)]
        self.assertEqual(choosing_k.trials_of({"runs": runs}), [])
        runs += [run("k4-narrow", s, 0.05, FOUR + " " + NARROW) for s in range(3)]
        (trial,) = choosing_k.trials_of({"runs": runs})
        self.assertEqual((trial["width"], trial["set"]), (8, "toy"))

    def test_need_two_seeds_and_leave_trunks_out(self):
        runs = [run("k1-x4", s, 0.02, ONE) for s in range(3)] + [run("k4", 0, 0.05, FOUR)]
        runs += [run("k4-trunk", s, 0.01, FOUR + " trunk.dm_steps=9") for s in range(3)]
        self.assertEqual(choosing_k.trials_of({"runs": runs}), [])

    def test_samples_are_those_of_the_stages_trunks_included(self):
        study = run("a", 0, 0, FOUR + " dm.batch=10 adm.batch=3")
        study["stages"] = {
            "trunk/tsm": {"steps": 7},
            "trunk/dm": {"steps": 5},
            "0/tsm": {"steps": 7},
            "0/dm": {"steps": 2},
            "1/dm": {"steps": 2},
            "1/adm": {"steps": 4},
        }
        self.assertEqual(choosing_k.samples_of(study), 9 * 10 + 4 * 3)

    def test_of_sets_of_points_have_their_classes(self):
        self.assertEqual(choosing_k.conditions_of("narrow-modes"), 9)
        self.assertEqual(choosing_k.conditions_of("narrow-rings"), 8)

    def test_are_those_of_the_results(self):
        subprocess.run([sys.executable, str(SCRIPT), "--check"], check=True)


if __name__ == "__main__":
    unittest.main()
