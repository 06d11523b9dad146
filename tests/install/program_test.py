#!/usr/bin/env python3
"""Tests that what `make install` installs runs without the build directory.

    python3 tests/install/program_test.py build/release

Needs only the standard library.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
OF_THE_SYSTEM = re.compile(r"^(linux-vdso|ld-linux|lib(c|m|dl|rt|util|pthread)\.so)")


def main(build):
    with tempfile.TemporaryDirectory() as folder:
        there = pathlib.Path(folder)
        subprocess.run(
            ["cmake", "--install", build, "--component", "program", "--prefix", there],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        program = there / "bin/atelier"
        for name in ("LICENSE", "NOTICE", "THIRD_PARTY.md"):
            assert (there / "share/doc/atelier" / name).is_file(), name
        bare = {
            "PATH": "/usr/bin:/bin",
            "HOME": folder,
            "ATELIER_CACHE": "off",
            "OMP_NUM_THREADS": "1",
        }
        for file in (program, there / "lib/libopenvino_intel_cpu_plugin.so"):
            for line in subprocess.run(
                ["ldd", file], capture_output=True, text=True, check=True, env=bare
            ).stdout.splitlines():
                name, _, path = line.strip().partition(" => ")
                if not OF_THE_SYSTEM.match(pathlib.Path(name.split()[0]).name):
                    assert path.startswith(str(there)), f"{file.name}: {line}"
        for engine in ("native", "openvino", "torch"):
            subprocess.run(
                [
                    program,
                    "sample",
                    ROOT / "models/fashion-mnist/k4",
                    "--count",
                    "3",
                    "--engine",
                    engine,
                    "--out",
                    there / "x.png",
                ],
                check=True,
                env=bare,
                cwd=folder,
                stderr=subprocess.PIPE,
            )
        assert subprocess.run(
            [program, "--version"], capture_output=True, env=bare, check=True
        ).stdout.startswith(b"atelier ")
    print("the installed program runs by itself")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except subprocess.CalledProcessError as failed:
        sys.exit(f"{failed}\n{(failed.stderr or b'').decode(errors='replace')}")
