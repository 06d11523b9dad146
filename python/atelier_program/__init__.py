"""The command `atelier` that pip installs, and which LibTorch it and the module compute with. Imports nothing large, so that the command starts at once."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

LIBTORCH = "2.13.0"


def installed_torch() -> tuple[Path, str] | None:
    """Folder and version of the package torch, where it is installed. It is not imported."""
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    try:
        found = re.search(r"^__version__ *(?:: *str)? *= *['\"]([^'\"]+)", (folder / "version.py").read_text(), re.MULTILINE)
    except OSError:
        return None
    return (folder, found[1]) if found else None


def usable_torch() -> Path | None:
    """The installed torch's folder, where its version is the one that Atelier was compiled for; it may know of CUDA, which the LibTorch in our wheel does not."""
    found = installed_torch()
    fits = found is not None and found[1].partition("+")[0] == LIBTORCH
    return found[0] if found and fits else None


def load_torch() -> None:
    """Load the installed torch's LibTorch, where it fits, before the module asks for one by name: a process can hold one only, and `import torch` may follow."""
    import ctypes
    import warnings

    imported = sys.modules.get("torch")
    version = getattr(imported, "__version__", None)
    if version is not None:
        if str(version).partition("+")[0] != LIBTORCH:
            raise ImportError(f"torch {version} is imported in this process; Atelier computes with LibTorch {LIBTORCH}: pip install torch=={LIBTORCH}, or import one of the two")
        return
    torch = usable_torch()
    if torch is not None:
        try:
            ctypes.CDLL(str(torch / "lib" / "libtorch_cpu.so"))
        except OSError:
            pass  # an installation without all of its libraries; ours is in the wheel
        return
    other = installed_torch()
    if other is not None:
        warnings.warn(f"torch {other[1]} is installed; Atelier computes with LibTorch {LIBTORCH}, so do not import torch in this process, or pip install torch=={LIBTORCH}",
                      RuntimeWarning, stacklevel=3)


def main() -> None:
    """Become the program."""
    program = Path(__file__).resolve().parent.parent / "atelier" / "bin" / "atelier"
    if not program.is_file():
        sys.exit(f"atelier: {program} is missing; install the package anew: pip install --force-reinstall .")
    torch = usable_torch()
    # With all libraries of NVIDIA, so that there may be a GPU for it. Else ours does as well.
    if torch is not None and (torch / "lib" / "libtorch_cuda.so").exists() and (torch.parent / "nvidia" / "cudnn").exists():
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [str(torch / "lib"), os.environ.get("LD_LIBRARY_PATH")]))
    os.execv(program, [str(program), *sys.argv[1:]])
