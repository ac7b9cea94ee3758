"""The command `python -m benchmarks.bench`."""

from __future__ import annotations

from benchmarks.bench.command import main

if __name__ == "__main__":
    raise SystemExit(main())
