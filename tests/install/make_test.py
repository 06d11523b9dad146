#!/usr/bin/env python3
"""Tests what make and scripts/setup.sh do before anything is compiled, on several kinds of machines
that are simulated by small programs in PATH. Needs only the standard library."""

import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import wheels  # noqa: E402


def make(*words):
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    return subprocess.run(
        ["make", *words], cwd=ROOT, capture_output=True, text=True, timeout=60, env=environment
    )


class Make(unittest.TestCase):
    def test_alone_says_what_there_is_and_does_nothing(self):
        makefile = (ROOT / "Makefile").read_text()
        targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
        said = make().stdout
        self.assertEqual(targets, set(re.findall(r"^  ([a-z]+) +\S", said, re.MULTILINE)))
        self.assertFalse(
            [
                line
                for line in make("-n").stdout.splitlines()
                if "cmake" in line or "setup.sh" in line
            ]
        )

    def test_leaves_no_option_to_the_next_target(self):
        files = [
            ROOT / "CMakeLists.txt",
            *sorted((ROOT / "cmake").glob("*.cmake")),
            *(ROOT / "tests").rglob("CMakeLists.txt"),
            ROOT / "python/CMakeLists.txt",
        ]
        text = "\n".join(file.read_text() for file in files)
        options = set(re.findall(r"option\((ATELIER_\w+)", text)) | set(
            re.findall(r"set\((ATELIER_\w+) [^)]*CACHE", text)
        )
        self.assertGreaterEqual(len(options), 4)
        for target in ("build", "demo", "test", "bench", "study", "install", "sanitize"):
            said = make("-n", target).stdout.replace("\\\n", " ")
            configured = [line for line in said.splitlines() if re.search(r"\bcmake -S", line)]
            self.assertTrue(configured, target)
            for line in configured:
                self.assertEqual(
                    options, set(re.findall(r"-D(ATELIER_\w+)=", line)), f"make {target}: {line}"
                )


MACHINE = {
    "dpkg-query": 'case " ${INSTALLED:-} " in *" ${@: -1} "*) echo "install ok installed" ;; *) '
    "exit 1 ;; esac",
    "id": 'echo "${USER_ID:-0}"',
    "sleep": ":",
    "python3": "mkdir -p .venv/bin; printf '#!/bin/sh\\necho \"wheels: $*\"\\n' > "
    ".venv/bin/python; chmod +x .venv/bin/python",
    # Reports that another process has the lock, once per line of the file LOCKED.
    "apt-get": 'echo "apt-get $*" >> "$CALLS"\n'
    'if [ -s "$LOCKED" ]; then sed -i 1d "$LOCKED"; echo "E: Could not get lock '
    '/var/lib/apt/lists/lock. It is held by process 1 (apt-get)" >&2; exit 100; fi\n'
    'if [ -n "$APT_FAILS" ]; then echo "E: Unable to fetch some archives" >&2; exit 100; fi',
}


class Setup(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        for name in ("scripts", "bin"):
            (self.folder / name).mkdir()
        for name in ("setup.sh", "wheels.py"):
            shutil.copy(ROOT / "scripts" / name, self.folder / "scripts" / name)
        for name, body in MACHINE.items():
            self.program(name, body)
        for name in (
            "bash",
            "dirname",
            "grep",
            "mktemp",
            "cat",
            "rm",
            "env",
            "sed",
            "mkdir",
            "chmod",
        ):
            (self.folder / "bin" / name).symlink_to(shutil.which(name))
        self.calls, self.locked = self.folder / "calls", self.folder / "locked"
        self.calls.touch()
        self.locked.touch()

    def program(self, name, body):
        file = self.folder / "bin" / name
        file.write_text(f"#!{shutil.which('bash')}\n{body}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def setup(self, *words, **environment):
        return subprocess.run(
            ["bash", "scripts/setup.sh", *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env={
                "PATH": str(self.folder / "bin"),
                "CALLS": str(self.calls),
                "LOCKED": str(self.locked),
                **environment,
            },
        )

    def test_installs_what_is_missing_and_hands_on_to_the_wheels(self):
        outcome = self.setup("test", INSTALLED="g++ cmake")
        self.assertEqual(outcome.returncode, 0, outcome.stderr)
        update, install = self.calls.read_text().splitlines()
        self.assertTrue(update.endswith(" update"))
        self.assertIn("libfmt-dev", install)
        self.assertIn("libgtest-dev", install)
        self.assertNotIn(" g++", install)
        self.assertIn("wheels: scripts/wheels.py test", outcome.stdout)

    def test_waits_for_another_package_manager_and_says_so_once(self):
        self.locked.write_text("x\n" * 3)
        outcome = self.setup()
        self.assertEqual(outcome.returncode, 0, outcome.stderr)
        self.assertEqual(outcome.stderr.count("another package manager is at work"), 1)
        self.assertIn("/var/lib/apt/lists/lock", outcome.stderr)
        self.assertEqual(len(self.calls.read_text().splitlines()), 5)

    def test_stops_waiting_some_time(self):
        self.locked.write_text("x\n" * 50)
        outcome = self.setup(APT_PATIENCE="20")
        self.assertEqual(outcome.returncode, 1)
        self.assertIn("Could not get lock", outcome.stderr)

    def test_another_failure_of_apt_is_shown(self):
        outcome = self.setup(APT_FAILS="yes")
        self.assertEqual(outcome.returncode, 1)
        self.assertIn("Unable to fetch some archives", outcome.stderr)
        self.assertIn("apt-get update failed", outcome.stderr)

    def test_without_root_and_sudo_the_packages_to_ask_for_are_named(self):
        outcome = self.setup(USER_ID="1000", INSTALLED="g++")
        self.assertEqual(outcome.returncode, 1)
        self.assertIn(
            "Ask an administrator for:\n    apt-get install --no-install-recommends cmake "
            "ninja-build",
            outcome.stderr,
        )
        self.assertEqual(self.calls.read_text(), "")
        self.program(
            "sudo", "exit 1"
        )  # one that would ask for a password, which nobody could enter
        self.assertIn("Ask an administrator for", self.setup(USER_ID="1000").stderr)
        self.program("sudo", '[ "$1" = -n ] && shift\n"$@"')
        self.assertEqual(self.setup(USER_ID="1000").returncode, 0)

    def test_elsewhere_than_on_debian_the_packages_are_named(self):
        (self.folder / "bin/dpkg-query").unlink()
        outcome = self.setup()
        self.assertEqual(outcome.returncode, 1)
        self.assertIn("libboost1.81-dev", outcome.stderr)
        self.assertEqual(self.setup(PACKAGES="no").returncode, 0)

    def test_cuda_is_handed_on(self):
        self.assertIn("--cuda", self.setup(PACKAGES="no", CUDA="1").stdout)
        self.assertNotIn("--cuda", self.setup(PACKAGES="no", CUDA="0").stdout)


class Wheels(unittest.TestCase):
    def test_the_needs_of_the_cpu_part_are_read_from_torchs_metadata(self):
        toolkit = (
            "Requires-Dist: filelock\nRequires-Dist: cuda-toolkit[cublas,cudart,cupti,"
            'nvrtc]==13.0.3; platform_system == "Linux"\nRequires-Dist: '
            "nvidia-cudnn-cu13==9.20.0.48; x\n"
        )
        self.assertEqual(wheels.needs_of_cpu_part(toolkit), ["cuda-toolkit[cudart,cupti]==13.0.3"])
        separate = (
            'Requires-Dist: nvidia-cuda-nvrtc-cu12==12.8.93; platform_system == "Linux"\n'
            'Requires-Dist: nvidia-cuda-runtime-cu12==12.8.90; platform_system == "Linux"\n'
            'Requires-Dist: nvidia-cuda-cupti-cu12==12.8.90; platform_system == "Linux"\n'
            "Requires-Dist: triton==3.4.0\n"
        )
        self.assertEqual(
            wheels.needs_of_cpu_part(separate),
            ["nvidia-cuda-runtime-cu12==12.8.90", "nvidia-cuda-cupti-cu12==12.8.90"],
        )
        self.assertEqual(
            wheels.needs_of_cpu_part("Requires-Dist: filelock\nRequires-Dist: sympy>=1.13.3\n"), []
        )

    def test_versions_are_written_once_or_alike(self):
        text = (ROOT / "cmake/libtorch.cmake").read_text()
        self.assertEqual(
            wheels.pinned("torch"),
            "torch==" + re.search(r"set\(libtorch_version ([0-9.]+)\)", text)[1],
        )
        for package in ("torch", "openvino"):
            self.assertEqual(
                1,
                len(
                    set(
                        re.findall(
                            rf"\b{package}==([0-9.]+)", (ROOT / "pyproject.toml").read_text()
                        )
                    )
                ),
                package,
            )

    def test_a_download_that_breaks_is_tried_again_and_then_said(self):
        with tempfile.TemporaryDirectory() as folder:
            for breaks, code in ((2, 0), (5, 1)):
                tries = pathlib.Path(folder, f"tries-{breaks}")
                pip = pathlib.Path(folder, f"pip-{breaks}")
                pip.write_text(
                    f"#!/bin/sh\necho x >> {tries}\n[ $(wc -l < {tries}) -gt {breaks} ] || "
                    f"{{ echo 'ERROR: connection broken' >&2; exit 1; }}\n"
                )
                pip.chmod(0o755)
                call = (
                    f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import wheels;"
                    f" wheels.PAUSE = 0; sys.executable = {str(pip)!r}; "
                    f"wheels.pip_install('atelier-needs-this')"
                )
                outcome = subprocess.run(
                    [sys.executable, "-c", call], capture_output=True, text=True, timeout=60
                )
                self.assertEqual(outcome.returncode, code, outcome.stderr)
                self.assertEqual(len(tries.read_text().splitlines()), 3)
                self.assertIn("attempt 2 of 3", outcome.stderr)
                if code:
                    self.assertIn(
                        "pip could not install atelier-needs-this in 3 attempts", outcome.stderr
                    )


if __name__ == "__main__":
    unittest.main()
