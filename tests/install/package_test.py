#!/usr/bin/env python3
"""Tests the Debian package: it is made, unpacked into an empty root beside Debian's C library
alone, and draws there.

    python3 tests/install/package_test.py build/release

Where mounting is allowed (as root) the program runs within that root (chroot); otherwise from its
folder, with an empty environment. Skipped (77) where there is no dpkg-deb.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENSEMBLE = ROOT / "models/fashion-mnist/k4"


def run(*words, **options):
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=200,
        **options,
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def of_the_c_library(program):
    """The C library's own files that a program loads."""
    for line in run("ldd", program).splitlines():
        if found := re.search(r"(?:=> )?(/\S+)", line):
            path = pathlib.Path(found[1])
            if re.match(r"(ld-linux|lib(c|m|dl|rt|util|pthread|resolv)\.so)", path.name):
                yield path


IN_THE_ROOT = (
    """mount --rbind /proc "$0/proc" && mount --rbind /sys "$0/sys" && """
    """exec chroot "$0" "$@" """
)


def may_mount():
    words = ["unshare", "--mount", "true"]
    return shutil.which("unshare") and subprocess.run(words, capture_output=True).returncode == 0


def sample_in(root, model, engine):
    words = ["/opt/atelier/bin/atelier", "sample", model, "--count", "3", "--out", "/x.png"]
    words += ["--engine", engine]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "OMP_NUM_THREADS": "1"}
    environment["ATELIER_CACHE"] = "off"
    if may_mount():  # the mounts are the child's alone
        run("unshare", "--mount", "sh", "-c", IN_THE_ROOT, root, *words, env=environment)
    else:
        words = [str(root) + word if word.startswith("/") else word for word in words]
        run(*words, env=environment, cwd="/")
    assert (root / "x.png").read_bytes().startswith(b"\x89PNG")
    (root / "x.png").unlink()


def main(build):
    if not shutil.which("dpkg-deb"):
        sys.exit(77)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run("cpack", "-G", "DEB", "-B", folder, cwd=build)
        (package,) = folder.glob("*.deb")
        fields = run("dpkg-deb", "--info", package)
        assert "Package: atelier" in fields and "Depends: libc6" in fields, fields
        assert package.stat().st_size < 450e6, package.stat().st_size
        root = folder / "root"
        run("dpkg-deb", "-x", package, root)
        package.unlink()
        program = root / "opt/atelier/bin/atelier"
        said = run("ldd", program, env={"PATH": os.environ["PATH"]})
        for place in (str(ROOT), "site-packages", "not found"):
            assert place not in said, said
        for file in of_the_c_library(program):
            target = root / str(file).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        for empty in ("tmp", "proc", "sys"):
            (root / empty).mkdir()
        shutil.copytree(ENSEMBLE, root / "k4")
        for engine in ("native", "openvino", "torch"):
            sample_in(root, "/k4", engine)
        sample_in(root, "models/fashion-mnist/k4", "auto")  # the package's own
    print("the package runs in an empty root")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve())
