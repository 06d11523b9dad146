"""The types of the native module are those that the module itself gives."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_stub_is_what_the_module_says():
    words = [sys.executable, ROOT / "scripts/python_stub.py", "--check"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
