"""Writes the tables and the figure of docs/performance.md from the results of bench.py."""

import json
import math
import pathlib
import re

from figures import ROOT, fill_markers

KINDS = ("", "-no-bf16")  # of machines, as the markers' names end
OURS = {
    "": "Atelier, openvino bf16",
    "-no-bf16": "Atelier, native fp32",
}  # the default precision there


def results_of(kind):
    return ROOT / f"benchmarks/results{kind}.json"


def this_kind():
    """The kind of this machine: whether its CPU computes in bfloat16, by the flags of Linux."""
    flags = pathlib.Path("/proc/cpuinfo")
    able = not flags.exists() or re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags.read_text())
    return "" if able else "-no-bf16"


def milliseconds(seconds):
    value = seconds * 1e3
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def table(head, rows):
    return "\n".join(
        ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        + ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    )


def latency(results):
    found = results.get("latency", {})
    names = sorted(found)
    if not names:
        return "Not measured yet."
    runtimes = list(dict.fromkeys(runtime for name in names for runtime in found[name]["seconds"]))
    ours, peak = OURS[results["kind"]], "fp32" if results["kind"] else "bf16"
    runtimes.sort(key=lambda runtime: not runtime.startswith("Atelier"))
    rows = []
    for runtime in runtimes:
        cells = []
        for name in names:
            seconds = found[name]["seconds"]
            cells.append(
                f"{milliseconds(seconds[runtime])} ({seconds[runtime] / seconds[ours]:.2f}x)"
                if runtime in seconds
                else "-"
            )
        rows.append([runtime] + cells)
    peaks = results.get("peak", {}).get("flops_per_second", {})
    if peak in peaks:
        rates = [found[name]["flops"] / found[name]["seconds"][ours] for name in names]
        rows.append(
            [f"share of this run's {peak} matrix peak ({peaks[peak] / 1e9:.0f} GFLOP/s)"]
            + [f"{100 * rate / peaks[peak]:.0f} %" for rate in rates]
        )
    return table(
        [f"ms (times {ours.replace('Atelier, ', '')} by Atelier)"]
        + [found[name]["words"] for name in names],
        rows,
    )


def sizes(results):
    found = results.get("latency", {})
    ours, rows = OURS[results["kind"]], []
    for large, small in (("adm64", "adm64-s"), ("adm64", "adm64-xs"), ("k4", "k4-small")):
        if large in found and small in found:
            flops = 1 - found[small]["flops"] / found[large]["flops"]
            time = 1 - found[small]["seconds"][ours] / found[large]["seconds"][ours]
            rows.append(
                [
                    f"{found[small]['words']} instead of {found[large]['words']}",
                    f"{100 * flops:.0f} %",
                    f"{100 * time:.0f} %",
                ]
            )
    return table(["", "FLOPs saved", "time saved"], rows) if rows else "Not measured yet."


def int8(results):
    rows = []
    for found in results.get("int8", {}).values():
        for size, row in found["batches"].items():
            bf16, quantised = row["bf16"], row["int8"]
            rows.append(
                [
                    found["words"],
                    size,
                    milliseconds(bf16["seconds"]),
                    milliseconds(quantised["seconds"]),
                    f"{bf16['seconds'] / quantised['seconds']:.2f}x",
                    f"{bf16['peak_rss_bytes'] / 2**20:.0f}",
                    f"{quantised['peak_rss_bytes'] / 2**20:.0f}",
                ]
            )
    head = ["", "batch", "bf16, ms", "int8, ms", "faster", "peak memory bf16, MiB", "int8, MiB"]
    return table(head, rows) if rows else "Not measured yet."


def training(results):
    found = results.get("training", {})
    if not found:
        return "Not measured yet."
    modes = sorted(
        dict.fromkeys(mode for row in found.values() for mode in row["images_per_second"]),
        key=lambda mode: not mode.startswith("Atelier"),
    )
    rows = []
    for mode in modes:
        cells = []
        for row in found.values():
            rates = row["images_per_second"]
            cells.append(
                f"{rates[mode]:.0f} ({rates['Atelier, bf16'] / rates[mode]:.2f}x)"
                if mode in rates
                else "-"
            )
        rows.append([mode] + cells)
    for mode in dict.fromkeys(mode for row in found.values() for mode in row["peak_rss_bytes"]):
        rows.append(
            [f"peak memory: {mode}"]
            + [
                f"{row['peak_rss_bytes'][mode] / 2**20:.0f} MiB"
                if mode in row["peak_rss_bytes"]
                else "-"
                for row in found.values()
            ]
        )
    return table(["images/s (Atelier's bf16 is so many times faster)"] + list(found), rows)


def ranks(results):
    found = results.get("ranks", {})
    rows = []
    for words in dict.fromkeys(words for row in found.values() for words in row["seconds_a_step"]):
        cells = []
        for row in found.values():
            times = row["seconds_a_step"]
            cells.append(
                f"{1 / times[words]:.2f} ({times['one process, 1 thread'] / times[words]:.2f}x)"
            )
        rows.append([words] + cells)
    head = ["steps a second (and so many times one thread's)"] + list(found)
    return table(head, rows) if rows else "Not measured yet."


def counts(results):
    found = list(results.get("counts", {}).values())
    titles = ["operations", "waits", "copies to the device", "copies to the host"]
    rows = [[row["words"]] + [f"{row[title]:.0f}" for title in titles] for row in found]
    return table([""] + titles, rows) if rows else "Not measured yet."


def start(results):
    found = results.get("start", {})
    rows = []
    for name, cases in found.items():
        for case in ("first", "again", "all students"):
            rows.append(
                [
                    f"{name}, {case}",
                    f"{cases[case]['seconds']:.2f}",
                    f"{cases[case]['peak_rss_bytes'] / 2**20:.0f} MiB",
                    f"{cases['weights_bytes'] / 2**20:.1f} MiB",
                ]
            )
    return (
        table(["", "seconds", "peak memory", "weights on disk"], rows)
        if rows
        else "Not measured yet."
    )


def held(results):
    found = results.get("held", {})
    if set(found) != {"k1", "k4"}:
        return "Not measured yet."
    weights = found["k1"]["weights_bytes"]
    rows = []
    for mode, few in found["k1"]["bytes"].items():
        many = found["k4"]["bytes"][mode]
        for when, words in (("ready", "ready"), ("used", "all students have answered")):
            each = (many[when] - few[when]) / 3
            rows.append(
                [
                    f"{mode}, {words}",
                    f"{few[when] / 2**20:.0f} MiB",
                    f"{many[when] / 2**20:.0f} MiB",
                    f"{each / 2**20:.1f} MiB",
                    f"{each / weights:.2f}x",
                ]
            )
    return table(["", "one student", "four", "a further student", "times its weights' file"], rows)


def batch(results):
    found = results.get("batch", {}).get("k4", {}).get("seconds", {})
    sizes_seen = sorted({int(size) for row in found.values() for size in row})
    rows = [
        [f"Atelier, {name}"]
        + [milliseconds(row[str(size)] / size) if str(size) in row else "-" for size in sizes_seen]
        for name, row in found.items()
    ]
    return (
        table(["ms an image at batch"] + [str(size) for size in sizes_seen], rows)
        if rows
        else "Not measured yet."
    )


def around(results):
    found = results.get("around", {}).get("nanoseconds", {})
    rows = [[name, f"{value / 1e3:.1f}"] for name, value in found.items() if "/" in name]
    return table(["", "us"], rows) if rows else "Not measured yet."


def picture(results, path):
    """Bars of latency relative to ours, one panel per network."""
    try:
        import matplotlib
    except ImportError:
        return
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "atelier"  # equal figures, equal file
    import matplotlib.pyplot as plt

    found = results.get("latency", {})
    names = [name for name in ("adm64", "adm64-xs", "k4") if name in found]
    if not names:
        return
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.8), squeeze=False)
    for axis, name in zip(axes[0], names):
        rows = sorted(found[name]["seconds"].items(), key=lambda row: -row[1])
        axis.barh(
            [row[0] for row in rows],
            [row[1] * 1e3 for row in rows],
            color=["#b3541e" if row[0].startswith("Atelier") else "#9aa5b1" for row in rows],
        )
        for place, row in enumerate(rows):
            axis.text(row[1] * 1e3, place, " " + milliseconds(row[1]), va="center", fontsize=7)
        axis.set_title(found[name]["words"], fontsize=9)
        axis.set_xlabel("ms an evaluation, batch 1", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_xlim(0, max(row[1] for row in rows) * 1.15e3)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def write(path):
    parts = {
        "latency": latency,
        "sizes": sizes,
        "int8": int8,
        "training": training,
        "ranks": ranks,
        "counts": counts,
        "start": start,
        "held": held,
        "batch": batch,
        "around": around,
        "machine": lambda all: (
            f"Machine: {all.get('machine', 'none yet')}; {all.get('threads', '-')} threads."
        ),
    }
    all_results = {
        kind: {**json.loads(results_of(kind).read_text()), "kind": kind}
        for kind in KINDS
        if results_of(kind).exists()
    }
    there = path.read_text()
    fill_markers(
        path,
        {
            f"bench {name}{kind}": make(results)
            for kind, results in all_results.items()
            for name, make in parts.items()
            if f"<!-- bench {name}{kind} -->" in there
        },
    )
    picture(all_results.get("", {}), path.parent / "images/latency.svg")
