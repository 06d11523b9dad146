"""The `atelier` command that pip installs, and the choice of LibTorch for it and the module.

Imports nothing large, so that the command starts immediately.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

LIBTORCH = "2.13.0"


def installed_torch() -> tuple[Path, str] | None:
    """Folder and version of the torch package, if it is installed. Does not import it."""
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations)))
    try:
        found = re.search(
            r"^__version__ *(?:: *str)? *= *['\"]([^'\"]+)",
            (folder / "version.py").read_text(),
            re.MULTILINE,
        )
    except OSError:
        return None
    return (folder, found[1]) if found else None


def usable_torch() -> Path | None:
    """The installed torch's folder if its version is the one that Atelier was compiled for.

    It may support CUDA, which the LibTorch in our wheel does not.
    """
    found = installed_torch()
    fits = found is not None and found[1].partition("+")[0] == LIBTORCH
    return found[0] if found and fits else None


def load_torch() -> None:
    """Load the installed torch's LibTorch, if it fits, before the module loads one by name.

    A process can hold only one, and `import torch` may follow.
    """
    import ctypes
    import warnings

    imported = sys.modules.get("torch")
    version = getattr(imported, "__version__", None)
    if version is not None:
        if str(version).partition("+")[0] != LIBTORCH:
            raise ImportError(
                f"torch {version} is imported in this process; Atelier computes with LibTorch "
                f"{LIBTORCH}: pip install torch=={LIBTORCH}, or import one of the two"
            )
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
        warnings.warn(
            f"torch {other[1]} is installed; Atelier computes with LibTorch {LIBTORCH}, so do not "
            f"import torch in this process, or pip install torch=={LIBTORCH}",
            RuntimeWarning,
            stacklevel=3,
        )


def main() -> None:
    """Replace this process by the program."""
    program = Path(__file__).resolve().parent.parent / "atelier" / "bin" / "atelier"
    if not program.is_file():
        sys.exit(
            f"atelier: {program} is missing; reinstall the package: pip install --force-reinstall ."
        )
    torch = usable_torch()
    # Only with all of NVIDIA's libraries, that is for a GPU; otherwise our LibTorch is as good.
    if (
        torch is not None
        and (torch / "lib" / "libtorch_cuda.so").exists()
        and (torch.parent / "nvidia" / "cudnn").exists()
    ):
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(
            filter(None, [str(torch / "lib"), os.environ.get("LD_LIBRARY_PATH")])
        )
    os.execv(program, [str(program), *sys.argv[1:]])
