"""Messages between two processes in which large arrays travel once.

A filter's mask or the codes of an attribute are as long as the catalogue, and the same array comes with
request after request. The sender gives it a number and sends it with the first message that holds it; later
ones hold the number. Once the sender's array is gone, the next message says so, and the receiver lets go of
its copy.
"""

from __future__ import annotations

import io
import pickle
import weakref
from collections import deque
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LARGE: Final = 8192
"""Bytes from which on an array is worth a number."""


class Sender:
    """Packs messages for one receiver; one thread at a time."""

    def __init__(self) -> None:
        """Begin with a receiver that has nothing."""
        self._numbers: dict[int, tuple[int, weakref.ref[Array]]] = {}
        """By id of an array that is alive: its number."""
        self._gone: deque[int] = deque()
        """Ids of arrays that are no more; filled by whatever thread lets go of them."""
        self._next = 0
        self._new: dict[int, Array] = {}

    def pack(self, message: object) -> bytes:
        """Return a message for `Receiver.unpack`; messages must arrive in order, and all of them."""
        forgotten = self._forget()
        packed = io.BytesIO()
        pickler = pickle.Pickler(packed, 5)
        pickler.dispatch_table = {np.ndarray: self._reduce}
        pickler.dump(message)
        new, self._new = self._new, {}
        return pickle.dumps((forgotten, new, packed.getvalue()), 5)

    def _reduce(self, array: Array) -> Any:  # noqa: ANN401 - as pickle wants it
        if array.nbytes < LARGE:
            return array.__reduce_ex__(5)
        known = self._numbers.get(id(array))
        if known is None or known[1]() is not array:
            number, self._next = self._next, self._next + 1
            place = id(array)
            gone = self._gone  # not this object, which a callback would keep alive
            self._numbers[place] = number, weakref.ref(array, lambda _: gone.append(number))
            self._new[number] = array
            return _numbered, (number,)
        return _numbered, (known[0],)

    def _forget(self) -> list[int]:
        forgotten = []
        while self._gone:
            forgotten.append(self._gone.popleft())
        if forgotten:
            numbers = set(forgotten)
            self._numbers = {p: known for p, known in self._numbers.items() if known[0] not in numbers}
        return forgotten


class Receiver:
    """Unpacks the messages of one sender."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._arrays: dict[int, Array] = {}

    def unpack(self, packed: bytes) -> Any:  # noqa: ANN401 - whatever was packed
        """Return a message of `Sender.pack`. An array of a number is the same object in every message."""
        forgotten, new, message = pickle.loads(packed)  # noqa: S301 - from a process of our own
        for number in forgotten:
            self._arrays.pop(number, None)
        self._arrays.update(new)
        return _Unpickler(message, self._arrays).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, packed: bytes, arrays: dict[int, Array]) -> None:
        super().__init__(io.BytesIO(packed))
        self._arrays = arrays

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as pickle has it
        if name == _numbered.__name__ and module == __name__:
            return self._arrays.__getitem__
        return super().find_class(module, name)


def _numbered(number: int) -> Array:
    """Stand for an array that the receiver has."""
    raise pickle.UnpicklingError(f"array {number} outside of a receiver")
