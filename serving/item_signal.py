"""How processes on one machine tell each other that items have changed: eight bytes that all of them see.

A process looks at the store of item changes a few times a second. That is soon enough for new items, but a
deleted one must not be in any answer that begins after its deletion was acknowledged, whichever process gives
it. So whoever has stored a change writes a value that was never there before, and every list begins with a
look at it, which costs nothing.
"""

from __future__ import annotations

import mmap
import os
import secrets
from pathlib import Path
from typing import Final

_BYTES: Final = 8


class ItemSignal:
    """The shared bytes; beside the state file, as SQLite keeps its own."""

    def __init__(self, state: Path) -> None:
        """Open or create the signal of a state file."""
        descriptor = os.open(state.with_name(f"{state.name}-items"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.ftruncate(descriptor, _BYTES)
            self._bytes = mmap.mmap(descriptor, _BYTES)
        finally:
            os.close(descriptor)
        self._seen = self._bytes[:]

    def tell(self) -> None:
        """Tell every process, this one too, that the store has a change that it had not."""
        self._bytes[:] = secrets.token_bytes(_BYTES)

    def news(self) -> bool:
        """Return whether something was told since the last call."""
        now = self._bytes[:]
        told, self._seen = now != self._seen, now
        return told

    def close(self) -> None:
        """Let go of the bytes."""
        self._bytes.close()
