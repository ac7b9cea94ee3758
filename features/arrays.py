"""Reading arrays from files while other threads go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

_BLOCK_BYTES: Final = 1 << 22
"""Read at a time: a few milliseconds, during which no other thread of Python runs."""


def load_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read a safetensors file, name -> array.

    `safetensors.numpy.load_file` holds Python's lock for as long as all of it takes; a server that loads its
    next model would answer nobody meanwhile.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            lazily = file.get_slice(name)
            shape = lazily.get_shape()
            if not shape or 0 in shape:
                arrays[name] = file.get_tensor(name)
                continue
            first = lazily[:1]
            whole = np.empty(shape, dtype=first.dtype)
            step = max(_BLOCK_BYTES // first.nbytes, 1)
            for start in range(0, shape[0], step):
                stop = min(start + step, shape[0])
                whole[start:stop] = lazily[start:stop]
            arrays[name] = whole
    return arrays
