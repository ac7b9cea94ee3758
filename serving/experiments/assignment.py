"""Assignment of users and sessions to arms: a hash and ranges, so that any program can compute it.

The position of a unit is uniform on [0, 1) and depends on the salt and the unit alone: every process, replica
and language assigns alike, nothing is stored, and experiments with other salts are independent of it (Tang et
al., "Overlapping Experiment Infrastructure", KDD 2010).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Final, TypeAlias

_DIGITS: Final = 13
"""Hex digits of the hash that make a position: 52 bits, which a double holds exactly."""
Ranges: TypeAlias = tuple[tuple[float, float], ...]
"""Half-open ranges of positions."""


def position(salt: str, unit: str) -> float:
    """Return the position of a unit: the first 13 hex digits of SHA-256 of `salt:unit`, divided by 2^52."""
    digest = hashlib.sha256(f"{salt}:{unit}".encode()).hexdigest()
    return int(digest[:_DIGITS], 16) / 16**_DIGITS


def arm_ranges(shares: Sequence[float]) -> list[Ranges]:
    """Return the ranges of positions of each arm.

    Arm number i of k, from 0, begins at its home i/k and grows upwards. What exceeds its home takes the free
    ends of other homes, from 1 downwards, arm by arm. So no unit changes from one arm to another while no
    share exceeds 1/k, and with two arms never more units than must.

    Args:
        shares: of the arms, at most 1 together.
    """
    exact = [Fraction(repr(share)) for share in shares]
    home = Fraction(1, max(1, len(exact)))
    taken = [[(i * home, i * home + min(share, home))] for i, share in enumerate(exact)]
    free = [(i * home + share, (i + 1) * home) for i, share in enumerate(exact) if share < home]
    for ranges, share in zip(taken, exact, strict=True):
        excess = share - home
        while excess > 0 and free:
            begin, end = free.pop()
            size = min(excess, end - begin)
            ranges.append((end - size, end))
            if size < end - begin:
                free.append((begin, end - size))
            excess -= size
    bounds = [sorted((float(begin), float(end)) for begin, end in ranges) for ranges in taken]
    return [tuple((begin, end) for begin, end in of_arm if begin < end) for of_arm in bounds]


def arm_at(ranges: Sequence[Ranges], at: float) -> int | None:
    """Return the number of the arm whose ranges contain a position; None where there is none."""
    for number, of_arm in enumerate(ranges):
        if any(begin <= at < end for begin, end in of_arm):
            return number
    return None
