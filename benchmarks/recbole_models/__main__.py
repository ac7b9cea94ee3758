"""The command `python -m benchmarks.recbole_models`."""

from __future__ import annotations

from benchmarks.recbole_models.command import main

if __name__ == "__main__":
    main()
