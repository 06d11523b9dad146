#!/usr/bin/env python3
"""What a run would take on a cluster: a model of compute, sums, loading, checkpoints and failures.

    python3 scripts/simulate_cluster.py                            # the tables of docs/clusters.md
    python3 scripts/simulate_cluster.py configs/sd15-msd4-adm.toml --gpus 16 64 --tflops 300
    python3 scripts/simulate_cluster.py --json

Work, sizes and batches come from `atelier run CONFIG --dry-run --json`; everything else is an
assumption, listed in Assumptions below with its reason, and may be given as an option. Nothing here
was measured on a cluster. docs/decisions has what follows from it. ATELIER sets another program
than build/release/atelier. Needs only the standard library.
"""

import argparse
import dataclasses
import json
import math
import os
import subprocess

from figures import ROOT, fill_markers

PAGE = ROOT / "docs/clusters.md"
PROGRAM = os.environ.get("ATELIER", str(ROOT / "build/release/atelier"))
DEFAULT = [
    ("configs/imagenet64-msd4-adm.toml", [4, 8, 32, 64]),
    ("configs/sd15-msd4-adm.toml", [64]),
]
SLOW = {"adapter": 10e9, "adapters": 1}  # one adapter of 100 Gb/s a node


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """Times are seconds, sizes bytes."""

    tflops: float = 200  # of a GPU in a U-Net's step, at large batches: docs/recipes.md assumes it
    half_rate_images: float = 4  # a micro-batch of so many images reaches half of that rate
    gpus_per_node: int = 8
    inside: float = 300e9  # bytes a second of a ring within a node: NVLink 4, two thirds of it
    adapter: float = 40e9  # of a network adapter: 400 Gb/s, four fifths of it
    adapters: int = 8  # of a node; rings between nodes use all of them side by side
    latency: float = 20e-6  # of each of the 2 (R - 1) turns of a ring of R ranks
    bytes_per_number: float = 8  # of a gradient in a sum: 8 in exact whole numbers, 4 in float32
    overlap: float = 0.5  # share of the last micro-batch during which sums run beside it
    loading: float = 3000  # images a second that a CPU core decodes and mirrors (64x64 pixels)
    cores: int = 8  # for each GPU
    writing: float = 1e9  # a checkpoint's bytes a second, checksum included
    checkpoint_every: float = 1800  # seconds: the recipes' checkpoint_seconds
    restart: float = 300  # from a failure to the first step: noticing, queueing, reading
    hours_between_failures: float = 50_000  # of one GPU with its share of a node and the network:
    # 419 unexpected interruptions of 16,384 GPUs in 54 days (Llama 3, arXiv 2407.21783, 3.3.4)
    price: float = 3  # of an hour of one GPU, in any currency


def dry_run(config, tflops):
    words = ["run", config, "--dry-run", "--json", "--tflops", str(tflops)]
    done = subprocess.run(
        [PROGRAM, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    plan = json.loads(done.stdout)  # a plan that does not fit is printed, too
    plan["parameters"] = {network["who"]: network["parameters"] for network in plan["networks"]}
    return plan


def ring(bytes_, ranks, assumed):
    """Seconds of a sum over `ranks` GPUs: 2 (R - 1) / R of the bytes pass through each GPU, at the
    rate of the slowest link of the ring (Patarasuk and Yuan 2009)."""
    if ranks == 1:
        return 0.0
    between = min(assumed.inside, assumed.adapter * assumed.adapters)
    link = assumed.inside if ranks <= assumed.gpus_per_node else between
    return 2 * (ranks - 1) / ranks * bytes_ / link + 2 * (ranks - 1) * assumed.latency


def division(batch, micro_batch, ranks):
    """Images of a micro-batch and micro-batches of a rank. Ranks share whole micro-batches, so
    these are made smaller than the recipe's until every rank has as many, as a user would."""
    images = math.ceil(batch / ranks)
    parts = math.ceil(images / micro_batch)
    return math.ceil(images / parts), parts


def stage_times(stage, parameters, ranks, assumed):
    """Seconds of one step of a stage on `ranks` GPUs, by what they go to."""
    images, parts = division(stage["batch"], stage["micro_batch"], ranks)
    rate = assumed.tflops * 1e12 * images / (images + assumed.half_rate_images)
    updates = 1 + stage["fake_updates"]
    share = min(1.0, parts * images / stage["batch"])  # of the batch, at the busiest rank
    compute = stage["flops_a_step"] * share / rate
    sums = updates * ring(parameters * assumed.bytes_per_number, ranks, assumed)
    # Only the last micro-batch of an update has gradients that are final.
    hidden = min(sums, assumed.overlap * compute / parts)
    # With a GAN, or without a fake score, every update reads real images.
    reads = updates if stage["stage"] == "adm" or stage["fake_updates"] == 0 else 1
    loading = reads * stage["batch"] / ranks / (assumed.loading * assumed.cores)
    return {
        "images": images,
        "parts": parts,
        "compute": compute,
        "sums": sums,
        "exposed": sums - hidden,
        "loading": loading,
        # Loaders read ahead while the GPUs compute.
        "step": max(compute + sums - hidden, loading),
        "without_overlap": max(compute + sums, loading),
    }


def checkpoint_bytes(stage, parameters):
    """float32: a student's weights, moments, average and best weights, and its fake score's
    weights, moments and best weights."""
    return parameters * 4 * (5 + (4 if stage["fake_updates"] else 0))


def with_interruptions(seconds, gpus_together, bytes_, assumed):
    """Wall time of `seconds` of steps on GPUs that fail together, and failures a day. Half an
    interval is done again after each (Young 1974)."""
    every = assumed.checkpoint_every
    saving = bytes_ / assumed.writing
    failures_a_second = gpus_together / (assumed.hours_between_failures * 3600)
    lost = failures_a_second * (assumed.restart + every / 2)
    return seconds * (1 + saving / every) / (1 - lost), saving / every, failures_a_second * 86400


def simulate(plan, gpus, assumed):
    """One row: K students side by side on gpus / K GPUs each."""
    students = plan["students"]
    if gpus % students and gpus > students:
        raise SystemExit(f"{gpus} GPUs are not the same number for each of {students} students")
    ranks, rounds = max(1, gpus // students), math.ceil(students / gpus)
    total = plain = compute = sums = exposed = loading = 0.0
    largest = 0
    parts = {}
    for stage in plan["stages"]:
        if stage["who"] not in plan["parameters"] or stage["stage"] == "teacher":
            continue
        parameters = plan["parameters"][stage["who"]]
        times = stage_times(stage, parameters, ranks, assumed)
        total += stage["steps"] * times["step"]
        plain += stage["steps"] * times["without_overlap"]
        compute += stage["steps"] * times["compute"]
        sums += stage["steps"] * times["sums"]
        exposed += stage["steps"] * times["exposed"]
        loading += stage["steps"] * times["loading"]
        largest = max(largest, checkpoint_bytes(stage, parameters))
        parts[stage["stage"]] = times
    wall, saving, failures = with_interruptions(total, ranks, largest, assumed)
    alone, _, _ = with_interruptions(plain, ranks, largest, assumed)
    bounds = {"compute": compute, "sums": exposed, "loading": max(0.0, loading - compute)}
    return {
        "gpus": gpus,
        "ranks": ranks,
        "rounds": rounds,
        "hours": wall * rounds / 3600,
        "hours_without_overlap": alone * rounds / 3600,
        "gpu_hours": wall * rounds / 3600 * min(gpus, students * ranks),
        "cost": wall * rounds / 3600 * min(gpus, students * ranks) * assumed.price,
        "compute": compute / total,
        "sums": exposed / total,
        "sums_without_overlap": sums / (compute + sums) if compute + sums else 0.0,
        "checkpoints": saving,
        "failures_a_day": failures * min(students, gpus),
        "bound_by": max(bounds, key=bounds.get),
        "stages": parts,
    }


def rows_of(config, counts, assumed):
    plan = dry_run(config, assumed.tflops)
    rows = [simulate(plan, gpus, assumed) for gpus in counts]
    ideal = simulate(plan, plan["students"], assumed)["gpu_hours"]  # a GPU for each student
    for row in rows:
        row["config"] = config
        row["efficiency"] = ideal / row["gpu_hours"]
    return rows


def percent(share):
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def table(rows):
    lines = [
        "| config | GPUs | for each student | days | without overlap | GPU-hours | sums | "
        "checkpoints | failures a day | of ideal |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = row["config"].removeprefix("configs/").removesuffix(".toml")
        lines.append(
            f"| `{name}` | {row['gpus']} | {row['ranks']} | {row['hours'] / 24:.1f} | "
            f"{row['hours_without_overlap'] / 24:.1f} | {row['gpu_hours']:,.0f} | "
            f"{percent(row['sums'])} | {percent(row['checkpoints'])} | "
            f"{row['failures_a_day']:.3f} | {percent(row['efficiency'])} |"
        )
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", help="a config; without: two recipes, into the page")
    parser.add_argument("--gpus", type=int, nargs="+", default=[4, 8, 32, 64])
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    for field in dataclasses.fields(Assumptions):
        parser.add_argument(
            "--" + field.name.replace("_", "-"), type=field.type, default=field.default
        )
    return parser.parse_args()


def main():
    options = arguments()
    assumed = Assumptions(
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(Assumptions)}
    )
    asked = [(options.config, options.gpus)] if options.config else DEFAULT
    rows = [row for config, counts in asked for row in rows_of(config, counts, assumed)]
    if options.json:
        print(json.dumps({"assumptions": dataclasses.asdict(assumed), "rows": rows}, indent=1))
        return
    if options.config or assumed != Assumptions():
        print(table(rows))
        return
    slow = dataclasses.replace(assumed, **SLOW)
    tables = {
        "simulated clusters": table(rows),
        "simulated slow network": table(rows_of(DEFAULT[0][0], [32, 64], slow)),
        "simulated float sums": table(
            rows_of(DEFAULT[0][0], [64], dataclasses.replace(slow, bytes_per_number=4))
        ),
    }
    print("\n\n".join(tables.values()))
    fill_markers(PAGE, tables)


if __name__ == "__main__":
    main()
