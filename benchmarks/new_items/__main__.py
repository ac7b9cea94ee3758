"""The command `python -m benchmarks.new_items`."""

from __future__ import annotations

import sys

from benchmarks.new_items.command import main

if __name__ == "__main__":
    sys.exit(main())
