"""Calls of a load as numbers: by kind, in all and within a window of time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from shelfwise_client.v1 import recommendations_pb2 as pb

_NO_HISTORY = pb.DEGRADATION_HISTORY_UNAVAILABLE
Call: TypeAlias = tuple[str, float, float, str, int]
"""Kind, wall time at the start, milliseconds, status code, degradation (1 is none, 0 is not said)."""


def summary(
    calls: Sequence[Call], seconds: float, between: tuple[float, float] | None = None
) -> dict[str, Any]:
    """Return throughput, latencies and failures of each kind of call.

    Args:
        calls: of a load.
        seconds: how long it ran.
        between: wall times; calls that began outside are left out, and `seconds` is the window's.
    """
    if between is not None:
        calls = [call for call in calls if between[0] <= call[1] < between[1]]
        seconds = between[1] - between[0]
    found = {}
    for kind in sorted({call[0] for call in calls}):
        mine = [call for call in calls if call[0] == kind]
        good = np.array([ms for _, _, ms, code, _ in mine if code == "OK"] or [np.nan])
        codes = Counter(code for *_, code, _ in mine if code != "OK")
        p50, p99 = (float(value) for value in np.percentile(good, [50, 99]))
        found[kind] = {
            "calls": len(mine), "failed": sum(codes.values()), "codes": dict(codes),
            "without_history": sum(level == _NO_HISTORY for *_, level in mine),
            "per_second": (len(mine) - sum(codes.values())) / max(seconds, 1e-9),
            "p50_ms": p50, "p99_ms": p99, "max_ms": float(good.max()),
        }  # fmt: skip
    return found
