"""The command `python -m benchmarks.month_replay`."""

from __future__ import annotations

import sys

from benchmarks.month_replay.command import main

if __name__ == "__main__":
    sys.exit(main())
