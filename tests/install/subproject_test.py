#!/usr/bin/env python3
"""Tests that another CMake project can take Atelier in by add_subdirectory (as FetchContent does):
it configures, has atelier::atelier, and gets none of our options, tests or installation.

    python3 tests/install/subproject_test.py LIBTORCH OPENVINO_DIR PYTHON
"""

import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

PARENT = """cmake_minimum_required(VERSION 3.25)
project(parent CXX)
set(CMAKE_CXX_STANDARD 17)
add_subdirectory({root} atelier EXCLUDE_FROM_ALL)
add_executable(garments {root}/examples/cmake_project/main.cpp)
target_link_libraries(garments PRIVATE atelier::atelier)
get_target_property(standard garments CXX_STANDARD)
get_target_property(options garments COMPILE_OPTIONS)
if(NOT standard EQUAL 17 OR options)
  message(FATAL_ERROR "the parent's settings were changed: ${{standard}} ${{options}}")
endif()
if(TARGET atelier_installed OR TARGET core_tests OR TARGET _atelier)
  message(FATAL_ERROR "a subproject has only the library and the program")
endif()
"""


def main(libtorch, openvino, python):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "CMakeLists.txt").write_text(PARENT.format(root=ROOT))
        given = [
            f"-DATELIER_LIBTORCH={libtorch}",
            f"-DOpenVINO_DIR={openvino}",
            f"-DPython_EXECUTABLE={python}",
        ]
        done = subprocess.run(
            ["cmake", "-S", folder, "-B", folder / "build", "-G", "Ninja", *given],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        cache = (folder / "build/CMakeCache.txt").read_text()
        for option in ("ATELIER_TESTS", "ATELIER_PYTHON", "ATELIER_BENCHMARKS"):
            assert option not in cache, f"{option} is an option of the parent now"
        assert "CMAKE_BUILD_TYPE:STRING=\n" in cache, "a build type was chosen for the parent"
        commands = subprocess.run(
            ["cmake", "--build", folder / "build", "--target", "garments", "--", "-t", "commands"],
            capture_output=True,
            text=True,
        )
        assert commands.returncode == 0 and "libatelier.so" in commands.stdout, commands.stderr

    presets = subprocess.run(
        ["cmake", "--list-presets"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for preset in json.loads((ROOT / "CMakePresets.json").read_text())["configurePresets"]:
        assert preset.get("hidden") or f'"{preset["name"]}"' in presets, preset["name"]
    print("the library is a good subproject, and CMake reads the presets")


if __name__ == "__main__":
    main(*sys.argv[1:])
