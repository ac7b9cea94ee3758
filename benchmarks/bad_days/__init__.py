"""Bad days of a shop's feed, planted on purpose: `BAD_DAYS` by name, each a change of a `Feed`.

`python -m benchmarks.bad_days` measures whether the checks of `retrain` refuse them, and nothing else.
"""

from __future__ import annotations

from benchmarks.bad_days.planted import BAD_DAYS, BadDay, Feed

__all__ = ["BAD_DAYS", "BadDay", "Feed"]
