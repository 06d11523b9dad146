#!/usr/bin/env python3
"""The study behind docs/results.md: executes missing runs, then writes docs/results.json and the
tables of docs/results.md.

    make study                                                    # everything
    python3 scripts/study.py --only toy                           # a group, group/experiment or
                                                                  # group/experiment/seed; several
                                                                  # with commas
    python3 scripts/study.py --only fashion --dry-run             # print the commands
    python3 scripts/study.py --no-run                             # tables from existing runs
    python3 scripts/study.py --no-run --reuse fashion/k4/1=DIR    # use a run made elsewhere as this
                                                                  # experiment's seed

May be repeated: finished runs are kept, interrupted ones are resumed. ATELIER sets another program
than build/release/atelier. Needs only the standard library.
"""

import argparse
import concurrent.futures
import datetime
import json
import math
import os
import pathlib
import random
import shlex
import statistics
import subprocess
import sys
import tomllib

import toy_sets
from choosing_k import samples_of
from figures import ROOT, commit, fill_markers, machine

RUNS = pathlib.Path("runs/study")  # relative to ROOT, where every command runs
RESULTS, PAGE = ROOT / "docs/results.json", ROOT / "docs/results.md"
PROGRAM = "build/release/atelier"


class Group:
    """Experiments on one data set, each with a name, a display name and config overrides."""

    def __init__(
        self,
        config,
        seeds,
        columns,
        experiments,
        tables,
        pairs=False,
        teacher=None,
        reference=None,
        data=None,
    ):
        self.config, self.seeds, self.columns, self.experiments, self.tables = (
            config,
            seeds,
            columns,
            experiments,
            tables,
        )
        self.pairs, self.reference = pairs, reference
        self.teacher = teacher  # a shipped one; if None, each seed trains its own
        self.data = data  # a set of toy_sets.py that is written first; None: the config's


def steps_times(factor, config, stages=("dm", "adm")):
    """Overrides for `factor` times the config's steps per student; warm-up is scaled down too."""
    base = tomllib.loads((ROOT / config).read_text())
    words = []
    for stage in stages:
        words.append(f"{stage}.steps={round(base[stage]['steps'] * factor)}")
        for key in ("warmup", "fake_warmup"):
            if factor < 1 and key in base[stage]:
                words.append(f"{stage}.{key}={max(1, round(base[stage][key] * factor))}")
    return words


TOY, FASHION = "configs/study-toy.toml", "configs/fashion-mnist.toml"


def students(k):
    return [f"partition.students={k}"]


def batch_times(factor, config, stages=("dm", "adm")):
    """Overrides that give each update `factor` times the config's batch."""
    base = tomllib.loads((ROOT / config).read_text())
    return [f"{stage}.batch={round(base[stage]['batch'] * factor)}" for stage in stages]


toy_experiments = {
    "k1": ("K=1", students(1)),
    "k2": ("K=2", students(2)),
    "k4": ("K=4", students(4)),
    "k8": ("K=8", students(8)),
    "k2-total": ("K=2, steps / 2", students(2) + steps_times(1 / 2, TOY)),
    "k4-total": ("K=4, steps / 4", students(4) + steps_times(1 / 4, TOY)),
    "k8-total": ("K=8, steps / 8", students(8) + steps_times(1 / 8, TOY)),
    "k1-x4": ("K=1, steps x 4", students(1) + steps_times(4, TOY)),
    "k4-x4": ("K=4, steps x 4", students(4) + steps_times(4, TOY)),
    # The same total number of samples, reduced by the batch size as in the paper, not by updates.
    "k1-b64-x4": (
        "K=1, batch / 4, steps x 4",
        students(1) + batch_times(1 / 4, TOY) + steps_times(4, TOY),
    ),
    "k4-batch": ("K=4, batch / 4", students(4) + batch_times(1 / 4, TOY)),
    "k4-batch-cell": (
        "K=4, batch / 4, cell pairs",
        students(4) + batch_times(1 / 4, TOY) + ["pairs.filter=cell"],
    ),
    "k1-b64-x16": (
        "K=1, batch / 4, steps x 16",
        students(1) + batch_times(1 / 4, TOY) + steps_times(16, TOY),
    ),
    "k4-b64-x4-cell": (
        "K=4, batch / 4, steps x 4, cell pairs",
        students(4) + batch_times(1 / 4, TOY) + steps_times(4, TOY) + ["pairs.filter=cell"],
    ),
    "random": ("random", ["partition.method=random"]),
    "kmeans": ("k-means of the label embeddings", ["partition.method=kmeans"]),
    "balanced": ("balanced by the teacher's loss", ["partition.method=balanced"]),
    "cell-pairs": ("only pairs of the own cell", ["pairs.filter=cell"]),
    "dm-only": ("DM 400 steps, no ADM", ["dm.steps=400", "adm.steps=0"]),
    "adm-without-pairs": ("DM 300 + ADM 100, pairs in DM only", ["adm.regression=none"]),
    "k4-half": ("K=4, half width, TSM", ["students.widths=[32]"]),
    "k4-half-no-tsm": (
        "K=4, half width, random start",
        ["students.widths=[32]", "students.tsm=false"],
    ),
    "k1-half": ("K=1, half width, TSM", students(1) + ["students.widths=[32]"]),
    "k1-half-x4": (
        "K=1, half width, TSM, steps x 4",
        students(1) + ["students.widths=[32]"] + steps_times(4, TOY, ("tsm", "dm", "adm")),
    ),
}
toy_tables = {  # rows, and what the base run "k4" is called among them
    "students": [
        "teacher",
        "k1",
        "k2",
        "k4",
        "k8",
        "k2-total",
        "k4-total",
        "k8-total",
        "k1-x4",
        "k4-x4",
    ],
    "batch": [
        "k1",
        "k1-b64-x4",
        ("k4-total", "K=4, steps / 4, all pairs"),
        ("k4-batch", "K=4, batch / 4, all pairs"),
        "k4-batch-cell",
        "k1-x4",
        "k1-b64-x16",
        ("cell-pairs", "K=4, cell pairs"),
        "k4-b64-x4-cell",
    ],
    "partition": [("k4", "consecutive"), "random", "kmeans", "balanced"],
    "pairs": [("k4", "all pairs"), "cell-pairs"],
    "stages": [("k4", "DM 300 + ADM 100, pairs in both"), "dm-only", "adm-without-pairs"],
    "size": [("k4", "K=4, full width"), "k4-half", "k4-half-no-tsm", "k1", "k1-half", "k1-half-x4"],
}


def narrow(k, batch, dm, adm, tsm, trunk=0, width=8):
    """Overrides for students too small for their data, with pairs of their cells."""
    words = students(k) + [f"students.widths=[{width}]", "pairs.filter=cell", f"tsm.steps={tsm}"]
    for stage, steps in (("dm", dm), ("adm", adm)):
        words += [f"{stage}.steps={steps}", f"{stage}.batch={batch}"]
    return words + ([f"trunk.dm_steps={trunk}"] if trunk else [])


# Of the same work: generator samples of all stages, and TSM's steps. Both sides at three batches.
narrow_experiments = {
    "k1-shortest": ("K=1, batch 64", narrow(1, 64, 1200, 400, 600)),
    "k4-shortest": ("K=4, batch 64", narrow(4, 64, 300, 100, 150)),
    "k1-short": ("K=1, batch 64", narrow(1, 64, 4800, 1600, 2400)),
    "k4-short": ("K=4, batch 64", narrow(4, 64, 1200, 400, 600)),
    "k1-b32": ("K=1, batch 32", narrow(1, 32, 38400, 12800, 9600)),
    "k1": ("K=1, batch 64", narrow(1, 64, 19200, 6400, 9600)),
    "k1-b256": ("K=1, batch 256", narrow(1, 256, 4800, 1600, 9600)),
    "k4-b32": ("K=4, batch 32", narrow(4, 32, 9600, 3200, 2400)),
    "k4": ("K=4, batch 64", narrow(4, 64, 4800, 1600, 2400)),
    "k4-b256": ("K=4, batch 256", narrow(4, 256, 1200, 400, 2400)),
    "k4-trunk": ("K=4 from a trunk, batch 64", narrow(4, 64, 2400, 1600, 9600, trunk=9600)),
    "k1-x4": ("K=1, batch 64, 4 x the work", narrow(1, 64, 76800, 25600, 38400)),
    "k4-x4": ("K=4, batch 64, 4 x the work", narrow(4, 64, 19200, 6400, 9600)),
    "k1-w16": ("K=1, width 16, batch 64", narrow(1, 64, 19200, 6400, 9600, width=16)),
    "k4-w16": ("K=4, width 16, batch 64", narrow(4, 64, 4800, 1600, 2400, width=16)),
}
narrow_tables = {
    "short": ["k1-shortest", "k4-shortest", "k1-short", "k4-short"],
    "long": [
        "teacher",
        *("k1-b32", "k1", "k1-b256", "k4-b32", "k4", "k4-b256", "k4-trunk"),
        *("k1-x4", "k4-x4", "k1-w16", "k4-w16"),
    ],
}
fashion_experiments = {
    "k1": ("K=1", students(1)),
    "k4": ("K=4", students(4)),
    "k4-total": ("K=4, steps / 4", students(4) + steps_times(1 / 4, FASHION)),
    "k4-small": ("K=4, half width, TSM", students(4) + ["students.widths=[16]"]),
    "k4-small-no-tsm": (
        "K=4, half width, random start",
        students(4) + ["students.widths=[16]", "students.tsm=false"],
    ),
    "k1-small": ("K=1, half width, TSM", students(1) + ["students.widths=[16]"]),
    "k1-x4": ("K=1, steps x 4", students(1) + steps_times(4, FASHION)),
}
fashion_tables = {
    "students": ["teacher", "k1", "k4", "k4-total", "k1-x4"],
    "size": ["k4", "k4-small", "k4-small-no-tsm", "k1", "k1-small"],
}


POINT_COLUMNS = [
    ("sliced_wasserstein", "sliced Wasserstein x 1000 ↓", 1000),
    ("mmd_squared", "MMD² x 1000 ↓", 1000),
    ("worst_mode", "worst piece's share % ↑", 100),
    ("modes_reached", "pieces reached % ↑", 100),
    ("strays", "strays % ↓", 100),
    ("class_agreement", "class agreement % ↑", 100),
]
IMAGE_COLUMNS = [
    ("feature_distance", "classifier-feature distance ↓", 1),
    ("kernel_feature_distance", "kernel distance x 1000 ↓", 1000),
    ("precision", "precision % ↑", 100),
    ("recall", "recall % ↑", 100),
    ("coverage", "coverage % ↑", 100),
    ("class_agreement", "class agreement % ↑", 100),
]


def spiral_point(stream, share):
    """The point of the spiral below which a fraction `share` of the points lies."""
    part = math.sqrt(share)
    angle = 4 * math.pi * part
    return part * math.cos(angle) + stream.gauss(0, 0.02), part * math.sin(angle) + stream.gauss(
        0, 0.02
    )


GOLDEN = (math.sqrt(5) - 1) / 2


def floor_of(point, classes=8, drawn=10000, reference=40000, directions=64, quantiles=512, seeds=5):
    """Sliced Wasserstein distances of new real samples to real reference points.

    This is what a perfect model would reach. The samples' classes follow the golden-ratio sequence,
    as a model's samples do; those of the reference are random.
    """
    stream = random.Random(0)
    lines = [
        (math.cos(math.pi * i / directions), math.sin(math.pi * i / directions))
        for i in range(directions)
    ]

    def projections(points):
        for x, y in lines:
            values = sorted(x * a + y * b for a, b in points)
            yield [values[round(i / (quantiles - 1) * (len(values) - 1))] for i in range(quantiles)]

    def drawn_points():
        first = stream.random()
        for i in range(drawn):
            piece = math.floor(classes * ((first + i * GOLDEN) % 1))
            yield point(stream, (piece + stream.random()) / classes)

    wanted = list(projections([point(stream, stream.random()) for _ in range(reference)]))
    distances = []
    for _ in range(seeds):
        found = projections(list(drawn_points()))
        distances.append(
            sum(abs(a - b) for f, w in zip(found, wanted) for a, b in zip(f, w))
            / directions
            / quantiles
        )
    return distances


GROUPS = {
    "toy": Group(
        TOY,
        range(5),
        POINT_COLUMNS,
        toy_experiments,
        toy_tables,
        pairs=True,
        reference=spiral_point,
    ),
    **{
        f"narrow-{name}": Group(
            TOY,
            range(3),
            POINT_COLUMNS,
            narrow_experiments,
            narrow_tables,
            pairs=True,
            data=name,
        )
        for name in toy_sets.SETS
    },
    "fashion": Group(
        FASHION,
        range(1, 4),
        IMAGE_COLUMNS,
        fashion_experiments,
        fashion_tables,
        teacher="models/fashion-mnist/teacher",
    ),
}

# Commands -----------------------------------------------------------------------------------------


def run_folder(group, name, seed):
    return RUNS / group / name / f"seed-{seed}"


def data_of(group):
    """A group's own data, training and held-out points; nothing where the config's are used."""
    name = GROUPS[group].data
    parts = ("train", "test") if name else ()
    return [str(RUNS / "data" / f"{name}-{part}.safetensors") for part in parts]


def data_words(group):
    """The overrides that name them."""
    keys = ("data.path", "data.test_path")
    return [f"{key}={path}" for key, path in zip(keys, data_of(group))]


def start_commands(group, seed):
    """The commands for what the runs of a seed share: a teacher, and pairs of its samples."""
    if GROUPS[group].teacher:
        return []
    folder, config = run_folder(group, "teacher", seed), GROUPS[group].config
    words = [config, f"seed={seed}", f"output={folder}"] + data_words(group)
    settings = tomllib.loads((ROOT / config).read_text())
    # All runs reuse the teacher's metrics from here; 1000 is the first seed of a run's evaluation.
    measured = [
        "evaluate",
        str(folder / "teacher"),
        "--data",
        (data_of(group) or [settings["data"]["path"]])[-1],
        "--sampler",
        "heun",
        "--seed",
        "1000",
        "--out",
        str(folder),
        "--count",
        str(settings["evaluate"]["count"]),
        "--seeds",
        str(settings["evaluate"]["seeds"]),
    ]
    return [["teacher"] + words] + ([["pairs"] + words] if GROUPS[group].pairs else []) + [measured]


def run_command(group, name, seed):
    folder = run_folder(group, "teacher", seed)
    words = [f"seed={seed}", f"teacher.path={GROUPS[group].teacher or folder / 'teacher'}"]
    if GROUPS[group].pairs:
        words += ["pairs.count=0", f"pairs.path={folder / 'pairs'}"]
    return (
        ["run", GROUPS[group].config]
        + words
        + data_words(group)
        + GROUPS[group].experiments[name][1]
        + [f"output={run_folder(group, name, seed)}"]
    )


def shown(command):
    return " ".join([PROGRAM] + [shlex.quote(word) for word in command])


def execute(command, folder):
    """Runs the program once and adds its CPU seconds to study.json in the run's folder.

    Returns whether it finished.
    """
    folder = ROOT / folder
    if folder.is_symlink():  # made elsewhere, see --reuse
        return True
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.json"
    notes = json.loads(path.read_text()) if path.exists() else {}
    before = notes.get(command[0], {})
    if before.get("finished") and before.get("command") == shown(command):
        return True
    print(f"{datetime.datetime.now():%H:%M:%S} {shown(command)}", flush=True)
    with open(folder / "output.txt", "a") as output:
        child = subprocess.Popen(
            [os.environ.get("ATELIER", str(ROOT / PROGRAM))] + command,
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    notes[command[0]] = {
        "command": shown(command),
        "finished": child.returncode == 0,
        "commit": commit(),
        "machine": machine(),
        "date": f"{datetime.date.today()}",
        "cpu_seconds": before.get("cpu_seconds", 0) + used.ru_utime + used.ru_stime,
    }
    path.write_text(json.dumps(notes, indent=2))
    if child.returncode == 130:  # atelier's exit code for: interrupted and resumable
        raise KeyboardInterrupt
    if child.returncode != 0:
        print(
            f"exit code {child.returncode}, see {folder / 'output.txt'}:\n"
            + (folder / "output.txt").read_text()[-500:],
            file=sys.stderr,
        )
    return child.returncode == 0


def run_everything(chosen, jobs):
    """Runs seed by seed, so that an unfinished study has complete seeds.

    Returns the number of failed commands.
    """
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for group, seed in dict.fromkeys((group, seed) for group, _, seed in chosen):
            for part, path in enumerate(data_of(group)):
                toy_sets.write(GROUPS[group].data, ROOT / path, seed=part)
            if not all(
                execute(command, run_folder(group, "teacher", seed))
                for command in start_commands(group, seed)
            ):
                failures += 1
                continue
            names = [name for other, name, s in chosen if (other, s) == (group, seed)]
            results = [
                pool.submit(execute, run_command(group, name, seed), run_folder(group, name, seed))
                for name in names
            ]
            try:
                failures += sum(not result.result() for result in results)
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                raise
    return failures


# Results ------------------------------------------------------------------------------------------


def metrics_of(model):
    return {key: value["mean"] for key, value in model["metrics"].items()}


def stages_of(folder):
    """Steps and seconds of each student's stages, "0/dm" and so on."""
    stages = {}
    places = ("students/*", "trunk")
    made = [path for place in places for path in folder.glob(f"{place}/*/stage.json")]
    for path in sorted(made):
        stage, name = json.loads(path.read_text()), path.parent.name
        settings = stage["settings"]
        of_trunk = settings.get("trunk", {}) if path.parent.parent.name == "trunk" else {}
        stages[f"{path.parent.parent.name}/{name}"] = {
            "steps": of_trunk.get(f"{name}_steps") or settings[name]["steps"],
            "seconds": stage["result"]["seconds"],
        }
    return stages


def collected(group, name, seed):
    """Everything that is reported about a run; None before its evaluation."""
    folder = ROOT / run_folder(group, name, seed)
    if not (folder / "evaluation.json").exists():
        return None
    evaluation = json.loads((folder / "evaluation.json").read_text())
    teacher, ensemble = (evaluation["models"][key] for key in evaluation["order"][:2])
    notes = (
        json.loads((folder / "study.json").read_text()).get("run", {})
        if (folder / "study.json").exists()
        else {}
    )
    if not folder.is_symlink() and not notes.get("finished"):
        return None
    return {
        "group": group,
        "experiment": name,
        "seed": seed,
        "command": shown(run_command(group, name, seed)),
        "metrics": metrics_of(ensemble),
        "teacher_metrics": metrics_of(teacher),
        "students": ensemble["students"],
        "parameters": ensemble["parameters"],
        "stages": stages_of(folder),
        "reused": folder.is_symlink(),
        **{key: notes[key] for key in ("cpu_seconds", "commit", "machine", "date") if key in notes},
    }


def gather():
    """The existing runs, and from the file those that do not exist here."""
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    runs = {(run["group"], run["experiment"], run["seed"]): run for run in before.get("runs", [])}
    floors = before.get("floor", {})
    for group, experiments in GROUPS.items():
        for name in experiments.experiments:
            for seed in experiments.seeds:
                found = collected(group, name, seed)
                if found:
                    runs[group, name, seed] = found
        if experiments.reference and group not in floors:
            floors[group] = {"sliced_wasserstein": floor_of(experiments.reference)}
    known = [
        run
        for (group, name, _), run in sorted(runs.items())
        if group in GROUPS and name in GROUPS[group].experiments
    ]
    return {
        "written": f"{datetime.date.today()}",
        "machine": machine(),
        "commit": commit(),
        "floor": floors,
        "runs": known,
    }


def write_results(results):
    head = json.dumps({key: value for key, value in results.items() if key != "runs"}, indent=1)[
        :-2
    ]
    RESULTS.write_text(
        head
        + ',\n "runs": [\n'
        + ",\n".join("  " + json.dumps(run) for run in results["runs"])
        + "\n ]\n}\n"
    )


def mean_and_spread(values, factor=1.0):
    values = [factor * value for value in values if value is not None]
    if not values:
        return "-"
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.4g}"
    spread = statistics.stdev(values)
    digits = min(4, max(0, 1 - math.floor(math.log10(spread)))) if spread > 0 else 1
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def seconds_of(runs):
    """CPU seconds; for a run made elsewhere the wall-clock time of its stages, marked as such."""
    measured = [run["cpu_seconds"] for run in runs if "cpu_seconds" in run]
    clocked = [
        sum(stage["seconds"] for stage in run["stages"].values())
        for run in runs
        if "cpu_seconds" not in run
    ]
    words = ([mean_and_spread(measured)] if measured else []) + (
        [mean_and_spread(clocked) + " by the clock"] if clocked else []
    )
    return ", ".join(words)


def steps_of(run):
    """Generator updates of all students together."""
    return sum(stage["steps"] for name, stage in run["stages"].items() if not name.endswith("/tsm"))


def table(results, group, rows):
    columns = GROUPS[group].columns
    lines = [
        "| | "
        + " | ".join(words for _, words, _ in columns)
        + " | steps | thousand samples | CPU s | seeds |",
        "|---" * (len(columns) + 5) + "|",
    ]
    commands = []
    if "teacher" in rows and group in results["floor"]:
        floor = results["floor"][group]
        cells = [
            mean_and_spread(floor[key], factor) if key in floor else ""
            for key, _, factor in columns
        ]
        lines.append(
            "| real points against real points | "
            + " | ".join(cells)
            + f" | | | | {len(floor['sliced_wasserstein'])} |"
        )
    for row in rows:
        name, words = row if isinstance(row, tuple) else (row, None)
        of = "k1" if name == "teacher" else name
        runs = [run for run in results["runs"] if (run["group"], run["experiment"]) == (group, of)]
        if not runs:
            continue
        if name == "teacher" and GROUPS[group].teacher:
            runs = runs[:1]  # one teacher for all seeds
        words = words or (
            "teacher, 35 evaluations" if name == "teacher" else GROUPS[group].experiments[name][0]
        )
        metrics = [run["teacher_metrics" if name == "teacher" else "metrics"] for run in runs]
        cells = [
            mean_and_spread([m.get(key) for m in metrics], factor) for key, _, factor in columns
        ]
        cost = (
            " |  | "
            if name == "teacher"
            else f"{steps_of(runs[0])} | {round(samples_of(runs[0]) / 1000)} | {seconds_of(runs)}"
        )
        lines.append(f"| {words} | " + " | ".join(cells) + f" | {cost} | {len(runs)} |")
        if name != "teacher":
            commands.append(
                f"python3 scripts/study.py --only {group}/{name}".ljust(60)
                + "# "
                + " ".join(GROUPS[group].experiments[name][1])
            )
    if not commands:
        return f"Not run yet: `python3 scripts/study.py --only {group}`."
    return "\n".join(lines + ["", "```"] + commands + ["```"])


def write_page(results):
    fill_markers(
        PAGE,
        {
            f"study {group}/{name}": table(results, group, rows)
            for group in GROUPS
            for name, rows in GROUPS[group].tables.items()
        },
    )


def reuse(mapping):
    place, _, folder = mapping.partition("=")
    known = {
        f"{group}/{name}/{seed}": run_folder(group, name, seed)
        for group in GROUPS
        for name in GROUPS[group].experiments
        for seed in GROUPS[group].seeds
    }
    if place not in known or not (pathlib.Path(folder) / "evaluation.json").exists():
        sys.exit(
            f"--reuse {mapping}: expected group/experiment/seed=DIR of a known experiment, with an "
            "evaluation.json in DIR"
        )
    link = ROOT / known[place]
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink():
        link.unlink()
    link.symlink_to(pathlib.Path(folder).resolve())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        default="",
        help="groups, group/experiment or group/experiment/seed, with commas; default: everything",
    )
    parser.add_argument("--seeds", type=int, help="only the first N seeds")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and do nothing")
    parser.add_argument("--no-run", action="store_true", help="only write the tables")
    parser.add_argument(
        "--reuse",
        action="append",
        default=[],
        metavar="GROUP/EXPERIMENT/SEED=DIR",
        help="take a run made elsewhere",
    )
    arguments = parser.parse_args()
    wanted = [word for word in arguments.only.split(",") if word]
    runs = {
        (group, name, seed): (group, f"{group}/{name}", f"{group}/{name}/{seed}")
        for group in GROUPS
        for seed in list(GROUPS[group].seeds)[: arguments.seeds]
        for name in GROUPS[group].experiments
    }
    known = {word for words in runs.values() for word in words}
    if unknown := [word for word in wanted if word not in known]:
        parser.error(
            f"no experiment {', '.join(unknown)}; known: "
            f"{', '.join(sorted(word for word in known if word.count('/') == 1))}"
        )
    chosen = [
        run for run, words in runs.items() if not wanted or any(word in wanted for word in words)
    ]
    if arguments.dry_run:
        for group, seed in dict.fromkeys((group, seed) for group, _, seed in chosen):
            names = [name for other, name, s in chosen if (other, s) == (group, seed)]
            for command in start_commands(group, seed) + [
                run_command(group, name, seed) for name in names
            ]:
                print(shown(command))
        return 0
    for mapping in arguments.reuse:
        reuse(mapping)
    failures = 0 if arguments.no_run else run_everything(chosen, arguments.jobs)
    results = gather()
    write_results(results)
    write_page(results)
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
