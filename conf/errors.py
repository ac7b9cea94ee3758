"""The error for wrong input, whose message is shown to users."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Wrong input; the message is one line that names the place and the fix.

    Commands print it without a traceback and exit with code 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name nearest to `name`, whatever its case, or an empty string."""
    by_lower = {k.lower(): k for k in known}
    match = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[match[0]] if match else ""


def closest(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the known name nearest to `name`, or an empty string."""
    near = nearest(name, known)
    return f"; did you mean '{near}'?" if near else ""


class GuardError(Exception):
    """A broken guard; the message has a line per guard.

    Commands print it without a traceback and exit with code 3.
    """
