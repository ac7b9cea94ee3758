"""The command `python -m benchmarks.fleet`."""

from __future__ import annotations

import sys

from benchmarks.fleet.command import main

if __name__ == "__main__":
    sys.exit(main())
