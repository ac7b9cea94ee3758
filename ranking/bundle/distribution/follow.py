"""A step again and again until SIGTERM or SIGINT, for `fetch` and `push` beside a server or a training."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from rich.console import Console
from rich.markup import escape

from conf.errors import InputError
from ranking.bundle.distribution.parts import StoppedError

_POLL_SECONDS = 0.2
_ERRORS = Console(stderr=True)


def follow(
    step: Callable[[Callable[[], bool]], None],
    seconds: float,
    name: str,
    last: Callable[[], None] | None = None,
) -> None:
    """Carry out a step at an interval; what fails is printed once until it changes, and tried again.

    Args:
        step: given a function that says whether a signal has come.
        seconds: between the end of a step and the next.
        name: of the command, for messages.
        last: carried out after the signal; an error of it ends the program with code 2.
    """
    signals: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        signals.append(number)

    former = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    said = ""
    try:
        while not signals:
            try:
                step(lambda: bool(signals))
                said = ""
            except StoppedError:
                break
            except (InputError, OSError) as error:  # of a disk that is full or away: it may come back
                if _line(error) != said:
                    said = _line(error)
                    _ERRORS.print(
                        f"[bold red]shelfwise {name}:[/bold red] {escape(said)} (again every {seconds:g} s)",
                        soft_wrap=True,
                    )
            end = time.monotonic() + seconds
            while not signals and time.monotonic() < end:  # a signal ends no sleep
                time.sleep(min(_POLL_SECONDS, seconds))
        if last is not None:
            last()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        sys.stdout.flush()


def _line(error: Exception) -> str:
    """Return an error as one line, with the file that the system names."""
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
