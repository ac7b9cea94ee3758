"""The command `python -m benchmarks.serving`."""

from __future__ import annotations

import sys

from benchmarks.serving.command import main

if __name__ == "__main__":
    sys.exit(main())
