#!/usr/bin/env python3
"""Checks the form of the project's files, each check by its name:

    layout   C++ files are laid out as clang-format does (`make format` does it)
    columns  no line of C++ or Python, and no paragraph of Markdown, is wider than 100 columns
    names    no two files of one unity build have a name of their own in common, which would compile
             or not as files come and go
    tidy     clang-tidy finds nothing in files that differ from the main branch, as far as they
             need no LibTorch; with --all in every file (`make tidy`, which takes long)

    python3 tests/form/check.py layout columns names tidy [--all]

clang-format and clang-tidy are those that scripts/setup.sh installs into .venv.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

import names

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLUMNS = 100
TORCH_FREE = ("core", "conditions", "kernels", "graph", "networks", "server")
TIDY_SECONDS = 300  # for one file
# Files that clang-tidy is not given, with the reason.
SKIPPED = {
    "kernels/attention_kernels.cpp": "has GCC's __builtin_shuffle, which Clang does not know",
    "networks/unet_blocks.cpp": "clang-tidy 19 has hung on it for minutes",
}
# The kernels that are compiled for several instruction sets, each file alone.
ALONE = re.compile(r"^set\(kernels ([^)]*)\)", re.MULTILINE)
FENCE = re.compile(r"^\s*(```|~~~)")
# What cannot be wrapped: rows of tables, headings, and a message, link, image or badge alone.
UNWRAPPABLE = re.compile(
    r"^\s*\||^#|^\*\*`.*`\*\*$|"
    r"^\s*([-*>]\s+|\d+\.\s+)?(`[^`]*`[.,;:]?|!?\[.*\]\(\S+\)[.,;]?|\S+|\[\S+\]: \S+)$"
)


class Missing(Exception):
    """A tool is not installed; the message is for the user."""


def tool(name, root=ROOT):
    path = root / ".venv/bin" / name
    if not path.exists():
        raise Missing(f"{path} is missing; scripts/setup.sh test installs it")
    return str(path)


def git(*words, root=ROOT):
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)


def tracked(*endings, root=ROOT):
    """The files of the project that exist; without git (an archive) all below its folders."""
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", root=root)
    if listed.returncode == 0:
        names = [name for name in listed.stdout.split("\0") if name]
    else:
        own = ("src", "apps", "tests", "python", "benchmarks", "scripts", "docs", "examples")
        names = [str(path.relative_to(root)) for path in root.glob("*.md")]
        names += [str(path.relative_to(root)) for at in own for path in (root / at).rglob("*")]
    paths = sorted({root / name for name in names if name.endswith(endings)})
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def layout_problems(root=ROOT):
    files = [str(path) for path in tracked(".h", ".cpp", root=root)]
    if not files:
        return []
    said = subprocess.run(
        [tool("clang-format"), "--style=file", "-n", *files],
        cwd=root,
        capture_output=True,
        text=True,
    )
    different = dict.fromkeys(re.findall(r"^(.*?):\d+:\d+: warning", said.stderr, re.MULTILINE))
    other = [] if different or said.returncode == 0 else [said.stderr]
    return [f"{path}: is not laid out by .clang-format; make format" for path in different] + other


def too_wide(path, text):
    """Numbers of the lines that are too wide and could be wrapped."""
    wide, code = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if path.suffix == ".md":
            if FENCE.match(line):
                code = not code
            if code or line.startswith("    ") or UNWRAPPABLE.match(line):
                continue
        if len(line) > COLUMNS:
            wide.append(number)
    return wide


def column_problems(root=ROOT):
    found = []
    for path in tracked(".h", ".cpp", ".md", ".py", root=root):
        for number in too_wide(path, path.read_text()):
            found.append(f"{path}:{number}: is wider than {COLUMNS} columns")
    return found


def unity_builds(root=ROOT):
    """(sources, headers) of each module's library and of its tests' program, whose sources CMake
    compiles in groups that shift as files come and go; without those that it compiles alone."""
    alone = ALONE.search((root / "CMakeLists.txt").read_text())
    alone = set(alone[1].split()) if alone else set()
    builds = {}
    for path in tracked(".cpp", ".h", root=root):
        parts = path.relative_to(root).parts
        if parts[:2] == ("src", "atelier") and not (parts[2] == "kernels" and path.stem in alone):
            key = parts[:3]
        elif parts[0] == "tests" and path.name.endswith((".h", "_test.cpp")):
            key = parts[:2]
        else:
            continue
        builds.setdefault(key, ([], []))[path.suffix == ".h"].append(path)
    return builds


def name_problems(root=ROOT):
    return [
        problem
        for build in unity_builds(root).values()
        for problem in names.repeated_names(
            *([(path, path.read_text()) for path in files] for files in build)
        )
    ]


def differing(root=ROOT):
    """The files that differ from the main branch, or from the last commit on it."""
    for branch in ("origin/main", "main"):
        base = git("merge-base", "HEAD", branch, root=root)
        if base.returncode == 0:
            names = git("diff", "--name-only", base.stdout.strip(), root=root).stdout
            names += git("ls-files", "--others", "--exclude-standard", root=root).stdout
            return {root / name for name in names.splitlines()}
    return set()


def tidy_sources(everything, root=ROOT):
    """The files that clang-tidy reads: all, or those that differ, or whose header does."""
    skipped = {root / "src/atelier" / name for name in SKIPPED}
    sources = [
        path
        for path in tracked(".cpp", root=root)
        if path.is_relative_to(root / "src") and path not in skipped
    ]
    if everything:
        return sources
    changed = differing(root)
    free = [root / "src/atelier" / module for module in TORCH_FREE]
    return [
        path
        for path in sources
        if (path in changed or path.with_suffix(".h") in changed)
        and any(path.is_relative_to(folder) for folder in free)
    ]


def tidy_problems(everything, root=ROOT):
    build, sources = root / "build/tidy", tidy_sources(everything, root)
    if not sources:
        return []
    # One command for each file, which unity builds and precompiled headers do not have.
    configure = ["cmake", "-S", ".", "-B", str(build), "-G", "Ninja", "-DCMAKE_UNITY_BUILD=OFF"]
    configure += ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON", "-Wno-dev"]
    configure += [f"-DATELIER_{name}=OFF" for name in ("TESTS", "PYTHON", "BENCHMARKS", "SANITIZE")]
    configured = subprocess.run(configure, cwd=root, capture_output=True, text=True)
    if configured.returncode != 0:
        return [configured.stderr]

    def findings(path):
        try:
            said = subprocess.run(
                [tool("clang-tidy", root), "--quiet", "-p", str(build), str(path)],
                cwd=root,
                capture_output=True,
                text=True,
                timeout=TIDY_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return [f"{path}: clang-tidy takes more than {TIDY_SECONDS} s; see SKIPPED"]
        return [said.stdout.strip() or said.stderr] if said.returncode != 0 else []

    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return [finding for found in threads.map(findings, sources) for finding in found]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checks", nargs="+", choices=["layout", "columns", "names", "tidy"])
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    checks = {
        "layout": layout_problems,
        "columns": column_problems,
        "names": name_problems,
        "tidy": lambda: tidy_problems(arguments.all),
    }
    try:
        found = [problem for name in arguments.checks for problem in checks[name]()]
    except Missing as missing:
        found = [str(missing)]
    print("\n".join(found) or f"{', '.join(arguments.checks)}: nothing to mend")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
