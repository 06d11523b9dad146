"""scripts/simulate_cluster.py, on a plan made here: its formulas against cases worked by hand."""

import dataclasses
import math
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))

import simulate_cluster as model  # noqa: E402

PLAIN = model.Assumptions(tflops=100, half_rate_images=0, latency=0, overlap=0, restart=0)
PLAN = {
    "students": 4,
    "parameters": {"teacher": 10**9, "students 0, 1, 2, 3": 10**9},
    "stages": [
        {
            "stage": "dm",
            "who": "students 0, 1, 2, 3",
            "steps": 1000,
            "batch": 64,
            "micro_batch": 32,
            "fake_updates": 4,
            "flops_a_step": 1e15,
        }
    ],
}


def near(value, expected):
    assert math.isclose(value, expected, rel_tol=1e-9), (value, expected)


def check_sums():
    """2 (R - 1) / R of the bytes over the slowest link; none for one GPU."""
    near(model.ring(8e9, 1, PLAIN), 0)
    near(model.ring(8e9, 8, PLAIN), 2 * 7 / 8 * 8e9 / 300e9)
    slow = dataclasses.replace(PLAIN, adapter=10e9, adapters=1)
    near(model.ring(8e9, 8, slow), 2 * 7 / 8 * 8e9 / 300e9)
    near(model.ring(8e9, 16, slow), 2 * 15 / 16 * 8e9 / 10e9)


def check_division():
    """Ranks share whole micro-batches, of the same number each, no larger than the recipe's."""
    for batch, micro_batch, ranks, expected in (
        (280, 40, 1, (40, 7)),
        (280, 40, 2, (35, 4)),
        (280, 40, 8, (35, 1)),
        (280, 40, 16, (18, 1)),
        (2048, 16, 16, (16, 8)),
    ):
        assert model.division(batch, micro_batch, ranks) == expected, (batch, ranks)


def check_steps():
    stage = PLAN["stages"][0]
    alone = model.stage_times(stage, 10**9, 1, PLAIN)
    near(alone["compute"], 10)
    assert alone["sums"] == 0 and alone["step"] == alone["without_overlap"] == alone["compute"]
    four = model.stage_times(stage, 10**9, 4, PLAIN)
    near(four["compute"], 2.5)
    near(four["sums"], 5 * 2 * 3 / 4 * 8e9 / 300e9)
    near(four["step"], four["compute"] + four["sums"])
    hidden = model.stage_times(stage, 10**9, 4, dataclasses.replace(PLAIN, overlap=0.5))
    near(hidden["step"], 2.5)
    near(hidden["without_overlap"], four["step"])
    # Fewer images at a time: half the rate where as many as half_rate_images.
    small = model.stage_times(stage, 10**9, 4, dataclasses.replace(PLAIN, half_rate_images=16))
    near(small["compute"], 5)
    starved = dataclasses.replace(PLAIN, loading=0.1, cores=1)
    near(model.stage_times(stage, 10**9, 1, starved)["step"], 640)


def check_runs():
    never = dataclasses.replace(PLAIN, hours_between_failures=1e30, writing=1e30)
    four, two, sixteen = (model.simulate(PLAN, gpus, never) for gpus in (4, 2, 16))
    near(four["hours"], 1000 * 10 / 3600)
    assert (four["ranks"], two["ranks"], sixteen["ranks"]) == (1, 1, 4)
    near(two["hours"], 2 * four["hours"])  # two students after two
    near(two["gpu_hours"], four["gpu_hours"])
    near(four["cost"], 3 * four["gpu_hours"])
    assert sixteen["hours"] < four["hours"] and sixteen["gpu_hours"] > four["gpu_hours"]
    # 36 GB at 1 GB/s every 1800 s, and a failure every ten hours of a GPU.
    often = dataclasses.replace(PLAIN, hours_between_failures=10)
    troubled = model.simulate(PLAN, 4, often)
    near(troubled["checkpoints"], 36 / 1800)
    near(troubled["failures_a_day"], 4 * 2.4)
    near(troubled["hours"], four["hours"] * (1 + 36 / 1800) / (1 - 900 / 36000))


if __name__ == "__main__":
    for check in (check_sums, check_division, check_steps, check_runs):
        check()
    print("the model's figures are those worked by hand")
