"""The command `python -m benchmarks.evaluation_speed`."""

from __future__ import annotations

from benchmarks.evaluation_speed.command import main

if __name__ == "__main__":
    main()
