#!/usr/bin/env python3
"""Tests what `cmake --install` gives to other C++ projects, after the installed tree was moved:
find_package and pkg-config build examples/cmake_project, which draws from the shipped ensemble.

    python3 tests/install/library_test.py build/release

Needs only the standard library, CMake and a compiler; skips pkg-config where there is none.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/cmake_project"
ENSEMBLE = ROOT / "models/fashion-mnist/k4"
OF_THE_SYSTEM = re.compile(r"^(linux-vdso|ld-linux|lib(c|m|dl|rt|util|pthread)\.so)")
BARE = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "ATELIER_CACHE": "off"}
BARE["OMP_NUM_THREADS"] = "1"


def run(*words, **options):
    return subprocess.run(
        [str(word) for word in words],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=options.pop("env", BARE),
        **options,
    ).stdout


def check_header(installed):
    headers = list((installed / "include").rglob("*.h"))
    assert [header.name for header in headers] == ["atelier.h"], headers
    for include in re.findall(r"#include (\S+)", headers[0].read_text()):
        assert re.fullmatch(r"<[a-z]+>", include), f"{include} is no standard header"
    words = headers[0].read_text().lower().replace('"openvino"', "")  # the name of an engine
    assert "openvino" not in words and "torch/" not in words


def check_nothing_names_the_build(installed, build):
    described = (installed / "lib/cmake").rglob("*.cmake")
    for file in [*described, installed / "lib/pkgconfig/atelier.pc"]:
        for place in (build, str(ROOT), str(installed)):
            assert str(place) not in file.read_text(), f"{file.name} names {place}"


def check_symbols(library):
    """Only the API is exported; its names begin with atelier::, below no module."""
    lines = run("nm", "-DC", "--defined-only", library).splitlines()
    names = [line.split(" ", 2)[2] for line in lines if line.split()[1] != "A"]
    assert any(name.startswith("atelier::Pipeline::sample(") for name in names), names
    odd = [
        name
        for name in names
        if not re.match(r"(typeinfo( name)? for |vtable for )?atelier::[A-Z]\w+", name)
        and not re.match(r"atelier::(train|version|write_png)[\[(]", name)
    ]
    assert not odd, odd


def check_loads_only_its_own(program, installed):
    for line in run("ldd", program).splitlines():
        name, _, path = line.strip().partition(" => ")
        if name.startswith(("libstdc++", "libgcc_s", "libgomp")):  # the program itself may need it
            continue
        if not OF_THE_SYSTEM.match(pathlib.Path(name.split()[0]).name):
            assert path.startswith(str(installed)), line


def check_draws(program, installed, folder):
    out = folder / "drawn.png"
    said = run(program, ENSEMBLE, out, "bag", "3", cwd="/")
    assert out.read_bytes().startswith(b"\x89PNG"), said
    assert "4 students, 10 classes, 28 x 28" in said and "bag belongs to student" in said, said
    check_loads_only_its_own(program, installed)
    failed = subprocess.run([program, "/nowhere"], env=BARE, capture_output=True, text=True)
    assert failed.returncode == 1 and "/nowhere" in failed.stderr, failed
    return out.read_bytes()


def with_cmake(installed, folder):
    options = [f"-DCMAKE_PREFIX_PATH={installed}", "-DCMAKE_BUILD_TYPE=Release"]
    run("cmake", "-S", EXAMPLE, "-B", folder / "cmake", *options)
    run("cmake", "--build", folder / "cmake")
    return folder / "cmake/garments"


def with_pkg_config(installed, folder):
    env = dict(BARE, PKG_CONFIG_PATH=str(installed / "lib/pkgconfig"))
    flags = run("pkg-config", "--cflags", "--libs", "atelier", env=env).split()
    compiler = os.environ.get("CXX", "g++")
    run(compiler, "-std=c++17", EXAMPLE / "main.cpp", "-o", folder / "garments", *flags)
    return folder / "garments"


def finds_installed_models(library_user, installed, folder):
    """By the names of the documentation, from any folder, for the library and the program."""
    elsewhere = folder / "elsewhere"
    said = run(library_user, "models/fashion-mnist/k4", elsewhere / "named.png", cwd=elsewhere)
    assert "4 students" in said, said
    for words in (["inspect"], ["sample", "--count", "1", "--out", "one.png"]):
        run(installed / "bin/atelier", *words, "models/fashion-mnist/k1", cwd=elsewhere)
    (elsewhere / "models").mkdir()  # what is there comes first
    words = [library_user, "models/none"]
    assert subprocess.run(words, cwd=elsewhere, env=BARE, capture_output=True).returncode == 1


def wrong_version_is_not_found(installed, folder):
    (folder / "newer").mkdir()
    (folder / "newer/CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(newer CXX)\n"
        "find_package(atelier 9 REQUIRED)\n"
    )
    words = ["cmake", "-S", folder / "newer", "-B", folder / "newer/b"]
    words.append(f"-DCMAKE_PREFIX_PATH={installed}")
    assert subprocess.run(words, capture_output=True, env=BARE).returncode != 0


def main(build):
    build = pathlib.Path(build).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run("cmake", "--install", build, "--prefix", folder / "here")
        installed = folder / "elsewhere/atelier"
        installed.parent.mkdir()
        shutil.move(folder / "here", installed)
        check_header(installed)
        check_nothing_names_the_build(installed, build)
        check_symbols(installed / "lib/libatelier.so")
        assert run(installed / "bin/atelier", "--version", cwd="/").startswith("atelier ")
        drawn = check_draws(with_cmake(installed, folder), installed, folder)
        if shutil.which("pkg-config"):
            assert check_draws(with_pkg_config(installed, folder), installed, folder) == drawn
        finds_installed_models(folder / "cmake/garments", installed, folder)
        wrong_version_is_not_found(installed, folder)
    print("other projects build against the installed library, wherever it is")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except subprocess.CalledProcessError as failed:
        sys.exit(f"{failed}\n{failed.stdout}\n{failed.stderr}")
