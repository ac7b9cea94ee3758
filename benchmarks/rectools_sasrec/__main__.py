"""The command `python -m benchmarks.rectools_sasrec`."""

from __future__ import annotations

from benchmarks.rectools_sasrec.command import main

if __name__ == "__main__":
    main()
