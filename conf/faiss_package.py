"""A check that exactly one package provides FAISS, without importing it.

The builds of FAISS for a CPU and for a GPU are packages of different names that own the same folder,
`faiss/`, and package managers do not detect the conflict: with both installed, either may be loaded.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Final

from conf.errors import InputError

PACKAGES: Final = (
    "faiss-cpu",
    "faiss-gpu",
    "faiss-gpu-cuvs",
    "faiss-gpu-cu12",
    "faiss-gpu-cu11",
    "faiss-cuda",
)
"""Packages on the index that own the folder `faiss/`."""
_INSTALL: Final = "pip install 'shelfwise[cpu]', or 'shelfwise[gpu]' where there is a CUDA GPU"


def require_faiss() -> None:
    """Check that exactly one intact build of FAISS is installed.

    Raises:
        InputError: it is not; the message has the commands that fix it.
    """
    found = {name: number for name in PACKAGES if (number := _version(name)) is not None}
    if len(found) > 1:
        both = " and ".join(f"{name} {number}" for name, number in found.items())
        raise InputError(
            f"FAISS is installed {len(found)} times, {both}, in one folder: "
            f"pip uninstall -y {' '.join(found)}, then {_INSTALL}"
        )
    spec = find_spec("faiss")
    if spec is not None and spec.origin is not None:
        return
    for name, number in found.items():
        raise InputError(
            f"FAISS ({name} {number}) has lost its files, as when another build of it is removed: "
            f"pip install --force-reinstall --no-deps {name}=={number}"
        )
    raise InputError(f"FAISS is not installed: {_INSTALL}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
