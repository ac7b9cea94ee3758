"""The command `python -m benchmarks.experiment_simulations`."""

from __future__ import annotations

from benchmarks.experiment_simulations.command import main

if __name__ == "__main__":
    main()
