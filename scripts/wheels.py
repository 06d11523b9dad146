#!/usr/bin/env python3
"""Installs the wheels that Atelier is built and run with into the environment of this Python, or
LibTorch alone into a folder.

    .venv/bin/python scripts/wheels.py               # LibTorch and OpenVINO
    .venv/bin/python scripts/wheels.py test          # also for the tests of the Python module and
                                                     # of kernels for GPUs (NVRTC, 58 MB), and
                                                     # clang-format and clang-tidy
    .venv/bin/python scripts/wheels.py form          # those two alone
    .venv/bin/python scripts/wheels.py --cuda        # LibTorch with all of NVIDIA's libraries, for
                                                     # a machine with a GPU
    .venv/bin/python scripts/wheels.py --into DIR    # LibTorch alone, as DIR/torch

PyPI's torch is the CUDA build, which depends on 3 GB of NVIDIA's wheels. The libraries that Atelier
links, libtorch_cpu and libc10, need only two of them, cudart and cupti; so torch is installed
without its dependencies, and those two in the versions that its metadata require. Skips what is
installed already. TORCH_INDEX sets another package index for torch. Needs only the standard
library.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# For the tests that compile kernels for GPUs. PyPI's torch brings one along in its CUDA build.
NVRTC = "nvidia-cuda-nvrtc==13.*"
ATTEMPTS = 3
PAUSE = 5.0  # seconds before the next attempt


def pinned(package: str) -> str:
    """`package==VERSION`, as in pyproject.toml."""
    found = re.search(rf"\b{package}==[0-9.]+", (ROOT / "pyproject.toml").read_text())
    assert found, package
    return found.group()


class Failed(Exception):
    """Something could not be installed; the message is for the user."""


def pip_install(*arguments: str) -> None:
    """Runs pip, up to ATTEMPTS times when a download breaks."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--retries",
        "5",
        "--timeout",
        "60",
        *arguments,
    ]
    if not sys.stdout.isatty():
        command.insert(4, "-q")
    wanted = " ".join(word for word in arguments if not word.startswith("-"))
    for attempt in range(1, ATTEMPTS + 1):
        # A build frontend would mistake pip's standard output for its own.
        with subprocess.Popen(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True) as pip:
            for line in pip.stderr:
                # It is intended that torch lacks dependencies.
                if not re.match(
                    r"ERROR: pip's dependency resolver|torch \S+ requires .*(not "
                    r"installed|incompatible)",
                    line,
                ):
                    sys.stderr.write(line)
        if pip.returncode == 0:
            return
        if attempt < ATTEMPTS:
            print(
                f"pip could not install {wanted} (attempt {attempt} of {ATTEMPTS}); trying again "
                f"in {PAUSE:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            time.sleep(PAUSE)
    raise Failed(
        f"pip could not install {wanted} in {ATTEMPTS} attempts; its output is above. If the "
        f"network "
        "failed, run the same command again: what is installed is kept. If the package index does "
        "not have it, set one that does (PIP_INDEX_URL; for LibTorch TORCH_INDEX)"
    )


def version_of(site: pathlib.Path, package: str) -> str | None:
    """The version of a package that is installed in `site`."""
    found = sorted(site.glob(f"{package}-*.dist-info/METADATA"))
    return (
        re.search(r"^Version: (.*)$", found[0].read_text(errors="replace"), re.MULTILINE)
        .group(1)
        .strip()
        if found
        else None
    )


def needs_of_cpu_part(metadata: str) -> list[str]:
    """The requirements in a CUDA build's metadata against which libtorch_cpu.so is linked."""
    parts = ("cudart", "cupti")
    needs = []
    for requirement in re.findall(r"^Requires-Dist: ([^;\n]+)", metadata, re.MULTILINE):
        requirement = requirement.strip()
        of_toolkit = re.fullmatch(r"(cuda-toolkit)\s*\[([^]]*)\]\s*(.*)", requirement)
        if of_toolkit:
            extras = [extra for extra in re.split(r"\s*,\s*", of_toolkit[2]) if extra in parts]
            needs += [f"{of_toolkit[1]}[{','.join(extras)}]{of_toolkit[3]}"] if extras else []
        elif re.match(r"nvidia-cuda-(runtime|cupti)\b", requirement):
            needs.append(requirement)
    return needs


def loads(torch: pathlib.Path) -> str:
    """Why libtorch_cpu.so cannot be loaded, or nothing.

    Tried in another process, since it would stay loaded in this one.
    """
    code = (
        "import ctypes, sys\ntry: ctypes.CDLL(sys.argv[1])\nexcept OSError as error: print(error)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(torch / "lib/libtorch_cpu.so")],
        capture_output=True,
        text=True,
    ).stdout.strip()


def has_libtorch(site: pathlib.Path) -> bool:
    wanted = pinned("torch").partition("==")[2]
    return (version_of(site, "torch") or "").partition("+")[0] == wanted and (
        site / "torch/lib/libtorch_cpu.so"
    ).exists()


def provide_libtorch(into: pathlib.Path | None = None, cuda: bool = False) -> pathlib.Path:
    """LibTorch's folder with everything that its CPU library needs; installed if missing."""
    site = into or pathlib.Path(sysconfig.get_path("purelib"))
    where = ["--target", str(site)] if into else []
    index = ["--index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
    torch = site / "torch"
    cuda_part = torch / "lib/libtorch_cuda.so"
    for_cpus = bool(index) and index[1].rstrip("/").endswith("/cpu")
    if (
        not has_libtorch(site)
        or (cuda and not cuda_part.exists())
        or (for_cpus and cuda_part.exists())
    ):
        print(
            f"installing LibTorch ({pinned('torch')}) below {site}: 0.5 GB to download from PyPI",
            file=sys.stderr,
            flush=True,
        )
        pip_install(*where, *index, "--upgrade", "--force-reinstall", "--no-deps", pinned("torch"))
    if cuda:
        if not cuda_part.exists():
            raise Failed(
                f"CUDA=1: the build of {pinned('torch')} that pip finds is CPU-only; set "
                f"TORCH_INDEX "
                "to an index with a CUDA build, e.g. https://pypi.org/simple"
            )
        pip_install(*where, *index, pinned("torch"))
        # Headers that torch's own requirements lack, for cmake/cuda_modules.cmake.
        pip_install(*where, "nvidia-cuda-crt==13.0.*", "nvidia-cuda-cccl==13.0.*")
    elif cuda_part.exists() and not all(
        any(site.glob(f"nvidia_cuda_{part}*.dist-info")) for part in ("runtime", "cupti")
    ):
        # Even if a CUDA toolkit is installed: it may be removed or replaced by another version.
        metadata = next(site.glob("torch-*.dist-info/METADATA")).read_text(errors="replace")
        pip_install(*where, *needs_of_cpu_part(metadata))
    why = loads(torch)
    if why:
        raise Failed(
            f"{torch}/lib/libtorch_cpu.so cannot be loaded: {why}. Remove {torch.parent} and run "
            f"the "
            "same command again"
        )
    return torch


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("more", nargs="?", choices=["test", "form", "bench"])
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--into", type=pathlib.Path)
    arguments = parser.parse_args()
    site = pathlib.Path(sysconfig.get_path("purelib"))
    try:
        provide_libtorch(arguments.into, arguments.cuda)
        if arguments.into:
            return 0
        if version_of(site, "openvino") != pinned("openvino").partition("==")[2]:
            pip_install(pinned("openvino"))
        if (
            arguments.more
            and not (site / "torch/lib/libtorch_cuda.so").exists()
            and not all(
                version_of(site, package) for package in ("typing_extensions", "sympy", "filelock")
            )
        ):
            pip_install(
                pinned("torch")
            )  # dependencies of `import torch` in the CPU build, not of Atelier
        if arguments.more == "test" and not all(
            version_of(site, package)
            for package in ("nanobind", "numpy", "pytest", "pillow", "pyyaml")
        ):
            pip_install("nanobind>=3.1,<4", "numpy", "pytest", "pillow", "pyyaml")
        if arguments.more == "test" and not version_of(site, "nvidia_cuda_nvrtc"):
            pip_install(NVRTC)
        form = [pinned(package) for package in ("clang-format", "clang-tidy")]
        if arguments.more in ("test", "form") and not all(
            version_of(site, package.replace("-", "_")) == version
            for package, _, version in (pin.partition("==") for pin in form)
        ):
            pip_install(*form)
        if arguments.more == "bench":
            pip_install("-r", str(ROOT / "benchmarks/requirements.txt"))
    except Failed as failed:
        print(f"scripts/wheels.py: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
