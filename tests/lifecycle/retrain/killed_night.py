"""A night in a process of its own that kills itself in the middle: `killed_night.py SETTINGS PLACE`."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path

from rich.console import Console

from lifecycle.retrain import command
from ranking.bundle import store


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the night; it is killed at the pointer of the store, or not by itself."""
    settings, place = sys.argv[1:3]
    config = pickle.loads(Path(settings).read_bytes())  # noqa: S301 - written by the test
    if place == "pointer":  # the version has passed and is complete, and is not current yet
        setattr(store, "_make_current", die)  # noqa: B010 - a function of another type
    command.retrain(config, Console(width=200))


if __name__ == "__main__":
    main()
