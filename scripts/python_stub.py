#!/usr/bin/env python3
"""Writes python/atelier/_atelier.pyi, the types of the native module, from the module itself.

    PYTHONPATH=build/release/python .venv/bin/python scripts/python_stub.py [--check]

With --check the file is left alone, and an outdated one is an error.
"""

import pathlib
import sys

from nanobind.stubgen import StubGen

import atelier._atelier

STUB = pathlib.Path(__file__).resolve().parents[1] / "python/atelier/_atelier.pyi"


def stub():
    generator = StubGen(atelier._atelier, include_docstrings=False, quiet=True)
    generator.put(atelier._atelier)
    # A name with underscores, which the generator takes for private.
    return generator.get().rstrip() + "\n\n__version__: str\n"


if __name__ == "__main__":
    if "--check" not in sys.argv:
        STUB.write_text(stub())
    elif STUB.read_text() != stub():
        sys.exit(f"{STUB} is outdated; {sys.argv[0]} without --check writes it")
