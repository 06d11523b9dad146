"""The origin line and the tables of pages with measured figures."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def commit():
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()


def machine():
    fields = dict(
        line.split(":", 1)
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        if ":" in line
    )
    model = next(
        (value.strip() for key, value in fields.items() if key.strip() == "model name"), "unknown"
    )
    memory = pathlib.Path("/proc/meminfo").read_text().split()[1]
    return f"{model}, {os.cpu_count()} cores, {int(memory) / 2**20:.1f} GiB"


def fill_markers(page, bodies):
    """Writes each of `bodies` between its marker, e.g. "bench latency", and the next end marker.

    The markers are in the file `page`.
    """
    text = page.read_text()
    for marker, body in bodies.items():
        begin, end = f"<!-- {marker} -->\n", "<!-- end -->"
        if begin not in text:
            sys.exit(f"{page}: the marker {begin.strip()} is missing")
        head, rest = text.split(begin, 1)
        text = head + begin + body + "\n" + end + rest.split(end, 1)[1]
    page.write_text(text)
