#!/usr/bin/env python3
"""Runs the tests of a build with coverage and prints the share of lines that they reach, for each
module of src/atelier.

    .venv/bin/python scripts/coverage.py build/coverage [-j N] [TESTS]       (make coverage)

TESTS is a pattern for ctest -R, all tests without it. Needs gcov, which comes with GCC.
"""

import argparse
import collections
import concurrent.futures
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]


def lines_reached(counts):
    """{source: {line: times}} of one compiled file, from what its run left behind."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["gcov", "--json-format", "--object-directory", str(counts.parent), str(counts)]
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        found = collections.defaultdict(dict)
        for file in pathlib.Path(folder).glob("*.gcov.json.gz"):
            report = json.loads(gzip.decompress(file.read_bytes()))
            base = pathlib.Path(report["current_working_directory"])
            for source in report["files"]:
                path = os.path.normpath(base / source["file"])
                for line in source["lines"]:
                    reached = found[path]
                    number = line["line_number"]
                    reached[number] = reached.get(number, 0) + line["count"]
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("tests", nargs="?", default="")
    parser.add_argument("-j", "--jobs", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    for old in arguments.build.rglob("*.gcda"):
        old.unlink()
    chosen = ["-R", arguments.tests] if arguments.tests else ["-E", "^(form|docs|install|web)\\."]
    tests = [
        "ctest",
        "--test-dir",
        str(arguments.build),
        "-j",
        str(arguments.jobs),
        "-LE",
        "nightly",
    ]
    passed = subprocess.run([*tests, "--output-on-failure", *chosen]).returncode == 0
    every = collections.defaultdict(dict)
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as threads:
        for found in threads.map(lines_reached, arguments.build.rglob("*.gcda")):
            for path, lines in found.items():
                for number, times in lines.items():
                    every[path][number] = every[path].get(number, 0) + times
    modules = collections.defaultdict(lambda: [0, 0])
    for path, lines in every.items():
        source = pathlib.Path(path)
        if not source.is_relative_to(ROOT / "src/atelier"):
            continue
        module = source.relative_to(ROOT / "src/atelier").parts[0]
        modules[module][0] += sum(times > 0 for times in lines.values())
        modules[module][1] += len(lines)
    for module, (reached, lines) in sorted(modules.items()):
        print(f"{module:<14}{100 * reached / lines:6.1f} %  {reached} of {lines} lines")
    return 0 if passed and modules else 1


if __name__ == "__main__":
    sys.exit(main())
