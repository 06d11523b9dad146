#!/usr/bin/env python3
"""Measures the figures of docs/performance.md beside those of peers, with the same weights and
threads, in one run.

    make bench                                       # everything, about 40 minutes on two cores
    python3 benchmarks/bench.py --only latency/k4    # one part, or one row group of it; several
                                                     # with commas
    python3 benchmarks/bench.py --pages              # only write the page from results.json

Parts: peak, latency, int8, training, ranks, counts, start, held, batch, around. New measurements
replace those in results.json, or in results-no-bf16.json on a CPU that does not compute in
bfloat16. Peers are plain PyTorch, torch.compile, ONNX Runtime and OpenVINO from ONNX (--peers, a
folder with latency.py, train_step.py and adm_unet.py); without them their rows are missing.
"""

import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

for folder in ("scripts", "tests/drills"):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / folder))
import live
import page
from figures import ROOT, commit, machine

BUILD, RESULTS = ROOT / "build/release", page.results_of(page.this_kind())
WORK = ROOT / "build/bench"  # random weights of the paper's sizes
FASHION = ROOT / "models/fashion-mnist"
# The networks whose latency is measured. Those of paper sizes have random weights, which cost the
# same time.
NETWORKS = {
    "adm64": "ADM U-Net 296 M (the paper's teacher)",
    "adm64-s": "ADM U-Net 173 M (its smaller student)",
    "adm64-xs": "ADM U-Net 86 M (its smallest)",
    "k4": "shipped student, 0.83 M",
    "k4-small": "shipped small student, 0.19 M",
}
RUNS = {"adm64": 7, "adm64-s": 7, "adm64-xs": 9, "k4": 200, "k4-small": 200}
if page.this_kind():  # where a peer's evaluation in bfloat16 takes up to a minute
    RUNS.update({"adm64": 2, "adm64-s": 2, "adm64-xs": 3})


CYCLE = [FASHION / "teacher", "--training", "--batch", "8", "--precision", "bf16"]
COUNTED = {
    "cycle": ("a DMD2 cycle of the shipped student", CYCLE),
    "cycle-gan": ("the same with the GAN head", [*CYCLE, "--gan"]),
    "evaluation": (
        "an evaluation and a request of the shipped student",
        [FASHION / "k4", "--engine", "torch"],
    ),
}


def run(command):
    """The JSON lines that a command prints, its wall-clock seconds and its peak memory in bytes."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        child = subprocess.Popen(words, cwd=ROOT, stdout=out, stderr=err)
        _, status, used = os.wait4(child.pid, 0)
        seconds, child.returncode = time.perf_counter() - began, os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if child.returncode != 0:
            print(
                f"{' '.join(words)}: exit code {child.returncode}\n{err.read()[-2000:]}",
                file=sys.stderr,
            )
        return (
            [json.loads(line) for line in out if line.startswith("{")],
            seconds,
            used.ru_maxrss * 1024,
        )


def lines_of(command):
    return run(command)[0]


def ours(model, *options):
    found = lines_of([BUILD / "atelier", "benchmark", model, *options])
    return found[0] if found else None


def around_peers(measure, peers):
    """Medians of measure(), {row: number}, called once before the peers and twice after them.

    A machine's speed drifts while they run.
    """
    turns = [measure()]
    found = peers()
    turns += [measure(), measure()]
    return {
        **{row: statistics.median(turn[row] for turn in turns if row in turn) for row in turns[0]},
        **found,
    }


class Bench:
    def __init__(self, peers, threads):
        self.peers, self.threads = peers, threads
        self.results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}

    def keep(self, part, name, value):
        self.results.setdefault(part, {})[name] = {
            "date": f"{datetime.date.today()}",
            "commit": commit(),
            **value,
        }
        self.results["machine"] = machine()
        self.results["threads"] = self.threads
        RESULTS.write_text(json.dumps(self.results, indent=1, sort_keys=True) + "\n")

    # Models that both sides read ------------------------------------------------------------------

    def paper_size(self, name):
        """A student of the peers' network `name` with random weights, none of them zero."""
        folder = WORK / name
        if not (folder / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            program = (
                "import sys, json, torch; sys.path.insert(0, sys.argv[1]); import adm_unet; from "
                "safetensors.torch import save_file\n"
                "torch.manual_seed(0); size = adm_unet.SIZES[sys.argv[2]]; net = "
                "adm_unet.Denoiser(size)\n"
                "for p in net.parameters():\n    if p.abs().max() == 0: torch.nn.init.normal_(p, "
                "0, 0.01)\n"
                "save_file({k: v.contiguous() for k, v in net.state_dict().items()}, sys.argv[3] "
                "+ '/model.safetensors')\n"
                "json.dump({'architecture': 'adm_unet', 'place': {'student': 0}, **size}, "
                "open(sys.argv[3] + '/config.json', 'w'))"
            )
            subprocess.run(
                [sys.executable, "-c", program, str(self.peers), name, str(folder)], check=True
            )
        return folder

    def for_peers(self, model):
        """The same network in the peers' form, with the same names.

        Patches of p x p pixels are channels of an image p times smaller.
        """
        config = json.loads((model / "config.json").read_text())
        patch = config.pop("patch_size", 1)
        if patch == 1:
            return model
        folder = WORK / "peers" / model.relative_to(FASHION)
        folder.mkdir(parents=True, exist_ok=True)
        config.pop("data", None)
        config.update(
            resolution=config["resolution"] // patch, channels=config["channels"] * patch**2
        )
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
        return folder

    def model(self, name):
        return (
            self.paper_size(name)
            if name.startswith(("adm", "small"))
            else FASHION / name / "students/0"
        )

    # Parts ----------------------------------------------------------------------------------------

    def peak(self, _):
        """The highest rate of matrix products of the peers' library, a bound for any network."""
        program = (
            "import torch, time, json, sys; torch.set_num_threads(int(sys.argv[1]))\n"
            "for name, kind in (('fp32', torch.float32), ('bf16', torch.bfloat16)):\n"
            "    a, b = (torch.randn(2048, 2048).to(kind) for _ in range(2)); times = []\n"
            "    for _ in range(25):\n"
            "        t = time.perf_counter(); a @ b; times.append(time.perf_counter() - t)\n"
            "    print(json.dumps({name: 2 * 2048**3 / min(times)}))"
        )
        found = {
            key: value
            for line in lines_of([sys.executable, "-c", program, self.threads])
            for key, value in line.items()
        }
        self.keep("peak", "flops_per_second", found)

    def latency(self, name):
        model, runs, flops = self.model(name), RUNS[name], {}

        def measure():
            rows = {}
            for engine, precision in (
                ("openvino", "bf16"),
                ("native", "fp32"),
                ("openvino", "fp32"),
                ("torch", "fp32"),
                ("torch", "bf16"),
            ):
                row = ours(
                    model,
                    "--engine",
                    engine,
                    "--precision",
                    precision,
                    "--threads",
                    self.threads,
                    "--runs",
                    runs,
                )
                if row:
                    rows[f"Atelier, {engine} {precision}"] = row["median_seconds"]
                    flops["flops"] = row["flops"]
            return rows

        def peers():
            command = [
                sys.executable,
                self.peers / "latency.py",
                "--model",
                self.for_peers(model),
                "--threads",
                self.threads,
                "--runs",
                runs,
                "--compile",
            ]
            return (
                {line["runtime"]: line["seconds"] for line in lines_of(command)}
                if self.peers
                else {}
            )

        self.keep(
            "latency",
            name,
            {
                "words": NETWORKS[name],
                "seconds": around_peers(measure, peers),
                "runs": runs,
                **flops,
            },
        )

    def quantised(self, name):
        """The same network in int8.

        For random weights there is no quality to preserve, so all but the first and last layers are
        quantised.
        """
        folder = WORK / f"{name}-int8"
        if not (folder / "config.json").exists():
            options = ["--samples", 1, "--tolerance", 1] if name.startswith("adm") else []
            lines_of([BUILD / "atelier", "quantize", self.model(name), "--out", folder, *options])
        return folder

    def int8(self, name):
        """bf16 and int8 alternately, so that both see the same state of the machine."""
        rows = {}
        for size in (1, 64) if name.startswith("k4") else (1,):
            turns = {"bf16": [], "int8": []}
            for _ in range(3):
                for precision, model in (
                    ("bf16", self.model(name)),
                    ("int8", self.quantised(name)),
                ):
                    turns[precision].append(
                        ours(
                            model,
                            "--precision",
                            precision,
                            "--threads",
                            self.threads,
                            "--runs",
                            RUNS[name],
                            "--batch",
                            size,
                        )
                    )
            rows[str(size)] = {
                precision: {
                    "seconds": statistics.median(row["median_seconds"] for row in found),
                    "peak_rss_bytes": max(row["peak_rss_bytes"] for row in found),
                }
                for precision, found in turns.items()
            }
        self.keep("int8", name, {"words": NETWORKS[name], "batches": rows})

    def training(self, name):
        network, gan = name.rsplit("/", 1)
        model = self.paper_size(network) if network == "small28" else FASHION / "teacher"
        options = ["--gan"] if gan == "gan" else []
        memory = {}

        def measure():
            rows = {}
            for precision in ("bf16", "fp32"):
                row = ours(
                    model,
                    "--training",
                    "--batch",
                    64,
                    "--precision",
                    precision,
                    "--threads",
                    self.threads,
                    "--runs",
                    5,
                    *options,
                )
                if row:
                    rows[f"Atelier, {precision}"] = row["images_per_second"]
                    memory[f"Atelier, {precision}"] = row["peak_rss_bytes"]
            return rows

        def peers():
            if not self.peers:
                return {}
            command = [
                sys.executable,
                self.peers / "train_step.py",
                "--model",
                self.for_peers(model),
                "--batch",
                64,
                "--threads",
                self.threads,
                *options,
                "--cycles",
            ]
            memory["torch eager, the larger of fp32 and bf16"] = run(command + [1])[2]
            return {
                line["mode"]: line["images_per_second"]
                for line in lines_of(command + [5, "--compile"])
            }

        self.keep(
            "training",
            name,
            {
                "images_per_second": around_peers(measure, peers),
                "peak_rss_bytes": memory,
                "batch": 64,
                "gan": gan == "gan",
            },
        )

    def start(self, name):
        """Wall-clock seconds and peak memory of one command that answers one request."""
        cache = WORK / "cache"
        rows = {}
        for case, options in (
            ("first", ["--class", "0"]),
            ("again", ["--class", "0"]),
            ("all students", ["--class", "0,3,6,8", "--count", "4"]),
        ):
            if case == "first":
                for file in cache.glob("*"):
                    file.unlink()
            command = [
                "/usr/bin/env",
                f"ATELIER_CACHE={cache}",
                BUILD / "atelier",
                "--quiet",
                "sample",
                FASHION / name,
                "--precision",
                "bf16",
                "--out",
                WORK / "start.png",
                *options,
            ]
            seen = [run(command)[1:] for _ in range(1 if case == "first" else 7)]
            rows[case] = {
                "seconds": statistics.median(seconds for seconds, _ in seen),
                "peak_rss_bytes": max(memory for _, memory in seen),
            }
        rows["weights_bytes"] = sum(
            file.stat().st_size for file in (FASHION / name).glob("students/*/model.safetensors")
        )
        self.keep("start", name, rows)

    def held(self, name):
        """Private bytes of a server before and after requests to all of its students.

        Requests are sent one by one, in batches and concurrently.
        """
        rows = {}
        for mode, options in (
            ("as it comes", []),
            ("openvino bf16", ["--engine", "openvino", "--precision", "bf16"]),
        ):
            with live.RunningServer(BUILD / "atelier", FASHION / name, *options) as server:

                def draw(c, count):
                    connection = live.Connection(server.port)
                    status, _ = connection.images({"class": c, "n": count, "seed": 1})
                    connection.close()
                    if status != 200:
                        raise RuntimeError(f"the server answered with {status}")

                rows[mode] = {"ready": server.own_bytes()}
                for count in (1, 10, 64):
                    for c in range(10):
                        draw(c, count)
                with concurrent.futures.ThreadPoolExecutor(3) as clients:
                    list(clients.map(lambda i: draw(i % 10, 64), range(30)))
                rows[mode]["used"] = server.own_bytes()
        self.keep(
            "held",
            name,
            {
                "bytes": rows,
                "weights_bytes": sum(
                    file.stat().st_size
                    for file in (FASHION / name).glob("students/*/model.safetensors")
                ),
            },
        )

    def batch(self, name):
        rows = {}
        for size in (1, 4, 16, 64, 256):
            for engine, precision in (
                ("openvino", "bf16"),
                ("native", "fp32"),
                ("openvino", "fp32"),
                ("torch", "fp32"),
            ):
                row = ours(
                    self.model(name),
                    "--engine",
                    engine,
                    "--precision",
                    precision,
                    "--threads",
                    self.threads,
                    "--batch",
                    size,
                    "--runs",
                    30,
                )
                if row:
                    rows.setdefault(f"{engine} {precision}", {})[str(size)] = row["median_seconds"]
        self.keep("batch", name, {"seconds": rows})

    def ranks(self, name):
        """Steps of the shipped teacher's training, by processes that share its micro-batches.

        The time of a step is that of the longer run less that of the shorter one, over the
        difference of their steps.
        """
        steps = (4, 44)
        data = "/usr/share/datasets/fashion-mnist"

        def seconds(ranks, threads, count, folder):
            place = {
                "WORLD_SIZE": ranks,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": live.free_port(),
            }
            command = [BUILD / "atelier", "teacher", ROOT / "configs/fashion-mnist.toml"]
            command += [f"data.path={data}", f"output={folder}", f"teacher.steps={count}"]
            command += [f"threads={threads}", f"precision={name}", "probe.count=2"]
            command += ["teacher.micro_batch=32", "checkpoint_seconds=1e6", "evaluate.steps=1"]
            children = [
                subprocess.Popen(
                    [str(word) for word in command],
                    cwd=ROOT,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={
                        **os.environ,
                        **({k: str(v) for k, v in place.items()} if ranks > 1 else {}),
                        **({"RANK": str(r), "LOCAL_RANK": str(r)} if ranks > 1 else {}),
                    },
                )
                for r in range(ranks)
            ]
            if any(child.wait() != 0 for child in children):
                raise RuntimeError(f"{ranks} ranks did not end well")
            stage = json.loads((pathlib.Path(folder) / "teacher/stage.json").read_text())
            return stage["result"]["seconds"]

        def measure():
            rows = {}
            for words, ranks, threads in (
                ("one process, 1 thread", 1, 1),
                ("one process, 2 threads", 1, 2),
                ("2 ranks of 1 thread", 2, 1),
            ):
                times = []
                for count in steps:
                    with tempfile.TemporaryDirectory() as folder:
                        times.append(seconds(ranks, threads, count, folder))
                rows[words] = (times[1] - times[0]) / (steps[1] - steps[0])
            return rows

        self.keep("ranks", name, {"seconds_a_step": around_peers(measure, dict)})

    def counts(self, name):
        """Operations, waits and copies of one more run, on the tests' pretended accelerator."""
        words, command = COUNTED[name]

        def counted(runs, folder):
            file = pathlib.Path(folder) / "counts"
            preload = BUILD / "tests/libpretend_device.so"
            subprocess.run(
                [str(BUILD / "atelier"), "benchmark", *map(str, command), "--device", "pretend"]
                + ["--runs", str(runs), "--threads", "1"],
                cwd=ROOT,
                env={**os.environ, "LD_PRELOAD": str(preload), "PRETEND_COUNTS": str(file)},
                stdout=subprocess.DEVNULL,
                check=True,
            )
            return [int(number) for number in re.findall(r"\d+", file.read_text().splitlines()[0])]

        few, many = 4, 8
        with tempfile.TemporaryDirectory() as folder:
            before, after = counted(few, folder), counted(many, folder)
        each = [(b - a) / (many - few) for a, b in zip(before, after)]
        titles = ["operations", "waits", "copies to the device", "copies to the host"]
        self.keep("counts", name, {"words": words, **dict(zip(titles, each, strict=True))})

    def around(self, _):
        done = subprocess.run(
            [str(BUILD / "around_the_network"), "--benchmark_format=json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        self.keep(
            "around",
            "nanoseconds",
            {row["name"]: row["real_time"] for row in json.loads(done.stdout)["benchmarks"]},
        )


PARTS = {
    "peak": ["flops_per_second"],
    "latency": list(NETWORKS),
    "int8": list(NETWORKS),
    "training": ["fashion/no-gan", "fashion/gan", "small28/no-gan", "small28/gan"],
    "ranks": ["fp32", "bf16"],
    "counts": list(COUNTED),
    "start": ["k1", "k4"],
    "held": ["k1", "k4"],
    "batch": ["k4"],
    "around": ["nanoseconds"],
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="parts or part/name, with commas; default: everything"
    )
    parser.add_argument("--peers", type=pathlib.Path, default=ROOT / "peers")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--pages", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    known = [f"{part}/{name}" for part, names in PARTS.items() for name in names]
    wanted = [word for word in arguments.only.split(",") if word] or list(PARTS)
    if unknown := [word for word in wanted if word not in known and word not in PARTS]:
        parser.error(f"there is no {', '.join(unknown)}; known: {', '.join(known)}")
    peers = arguments.peers.resolve() if (arguments.peers / "latency.py").exists() else None
    if not peers:
        print(
            f"{arguments.peers}: no peers here, so their rows and the paper's sizes are left out",
            file=sys.stderr,
        )
    bench = Bench(peers, arguments.threads)
    WORK.mkdir(parents=True, exist_ok=True)
    for part, name in (word.split("/", 1) for word in known if not arguments.pages):
        if (part in wanted or f"{part}/{name}" in wanted) and (
            peers or not name.startswith(("adm", "small"))
        ):
            print(f"{datetime.datetime.now():%H:%M:%S} {part}/{name}", flush=True)
            getattr(bench, part)(name)
    page.write(ROOT / "docs/performance.md")


if __name__ == "__main__":
    main()
