"""A job handed over to other processes: its arrays in files that each process maps.

Pickled as a whole, a job with the events and the text vectors of a large catalogue would exist once more in
every process, and twice while it is sent. Here only what is small is pickled. Arrays and tensors are written
to files, one each, and mapped copy-on-write: the processes of a machine share one copy in the page cache, a
process reads only the pages that it uses, and has a copy only of those that it changes, such as its weights.
"""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

SMALL: Final = 1 << 16
"""Bytes below which an array is pickled with the rest."""
JOB: Final = "job.pkl"


def _mapped(path: str) -> np.ndarray:
    """Map an array copy-on-write."""
    array: np.ndarray = np.load(path, mmap_mode="c")
    return array


class _Writer(pickle.Pickler):
    """Pickles into memory, with large arrays and CPU tensors as references to files."""

    def __init__(self, file: io.BytesIO, folder: Path) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.folder = folder
        self.written: dict[tuple[object, ...], tuple[str, np.ndarray]] = {}
        """Memory of an array -> its file, and the array, which keeps the memory from being used again."""

    def _reference(self, array: np.ndarray) -> tuple[Any, tuple[str]]:
        """Write an array, once if several objects share its memory, and return how to map it."""
        place = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str)
        if place not in self.written:
            path = self.folder.resolve() / f"{len(self.written)}.npy"
            np.save(path, array, allow_pickle=False)
            self.written[place] = (str(path), array)
        return _mapped, (self.written[place][0],)

    def reducer_override(self, obj: object) -> Any:  # noqa: ANN401 - as pickle has it
        """Return how to map an array or a plain tensor; NotImplemented leaves it to pickle."""
        if type(obj) is np.ndarray or type(obj) is np.memmap:
            if obj.nbytes >= SMALL and not obj.dtype.hasobject:
                return self._reference(obj)
        elif type(obj) is Tensor and obj.device.type == "cpu" and obj.layout is torch.strided:
            plain = not obj.requires_grad and obj.dtype is not torch.bfloat16  # which NumPy lacks
            if plain and obj.nbytes >= SMALL:
                return torch.from_numpy, (obj.numpy(),)
        return NotImplemented


def hand_over(job: object, folder: Path) -> None:
    """Write a job for `take_over`, into a folder that is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pickled = io.BytesIO()
    _Writer(pickled, folder).dump(job)
    (folder / JOB).write_bytes(pickled.getbuffer())


def take_over(folder: Path) -> Any:  # noqa: ANN401 - whatever was handed over
    """Return a job that another process of this program has written by `hand_over`."""
    return pickle.loads((folder / JOB).read_bytes())  # noqa: S301 - written a moment ago by the same command
