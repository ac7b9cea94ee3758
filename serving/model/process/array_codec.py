"""Messages between two processes in which large arrays are sent once.

A filter's mask or the codes of an attribute are as long as the catalogue, and the same array is part of many
requests. The sender assigns it a number and sends it with the first message; later ones contain the number.
Once the sender's array is garbage collected, the next message says so, and the receiver drops its copy.
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
"""Size in bytes from which on an array is sent once."""


class Sender:
    """Packs messages for one receiver; one thread at a time."""

    def __init__(self) -> None:
        """Begin with a receiver without arrays."""
        self._numbers: dict[int, tuple[int, weakref.ref[Array]]] = {}
        """Number of each live array, by its `id`."""
        self._gone: deque[int] = deque()
        """Numbers of collected arrays; filled by any thread."""
        self._next = 0
        self._new: dict[int, Array] = {}

    def pack(self, message: object) -> bytes:
        """Return a message for `Receiver.unpack`; messages must arrive in order, and all of them."""
        released = self._release()
        packed = io.BytesIO()
        pickler = pickle.Pickler(packed, 5)
        pickler.dispatch_table = {np.ndarray: self._reduce}
        pickler.dump(message)
        new, self._new = self._new, {}
        return pickle.dumps((released, new, packed.getvalue()), 5)

    def _reduce(self, array: Array) -> Any:  # noqa: ANN401 - as pickle wants it
        if array.nbytes < LARGE:
            return array.__reduce_ex__(5)
        known = self._numbers.get(id(array))
        if known is None or known[1]() is not array:
            number, self._next = self._next, self._next + 1
            gone = self._gone  # not self, which the callback would keep alive
            self._numbers[id(array)] = number, weakref.ref(array, lambda _: gone.append(number))
            self._new[number] = array
            return _numbered, (number,)
        return _numbered, (known[0],)

    def _release(self) -> list[int]:
        """Return the numbers of arrays collected since the last message."""
        released = []
        while self._gone:
            released.append(self._gone.popleft())
        if released:
            numbers = set(released)
            self._numbers = {key: known for key, known in self._numbers.items() if known[0] not in numbers}
        return released


class Receiver:
    """Unpacks the messages of one sender."""

    def __init__(self) -> None:
        """Begin without arrays."""
        self._arrays: dict[int, Array] = {}

    def unpack(self, packed: bytes) -> Any:  # noqa: ANN401 - whatever was packed
        """Return a message of `Sender.pack`; an array sent once is the same object in every message."""
        released, new, message = pickle.loads(packed)  # noqa: S301 - from a process of our own
        for number in released:
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
    """Placeholder of an array that the receiver has."""
    raise pickle.UnpicklingError(f"array {number} outside of a receiver")
