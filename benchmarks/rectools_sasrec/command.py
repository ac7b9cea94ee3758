"""An external check of the protocol: RecTools' SASRec on the same data, split, exclusion and catalogue.

    shelfwise prepare data=amazon_reviews data.items=i.parquet data.events=e.parquet work_dir=work/beauty
    python -m benchmarks.rectools_sasrec split=leave_one_out work_dir=work/beauty

creates an environment for RecTools beside the results (downloaded once), trains there, and measures the lists
with this project's metrics and with RecTools' own; the two must agree. Options precede the overrides;
overrides are those of `shelfwise evaluate`.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.outside import Outsider, add_shared_options, compare

RECTOOLS = Outsider("RecTools", "rectools_sasrec")


def read_options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the benchmark's options, and the overrides after them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rectools_sasrec")
    parser.add_argument("--n-factors", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--max-length", type=int, default=50)
    parser.add_argument(
        "--loss", choices=["softmax", "sampled_softmax", "BCE", "gBCE"], default="sampled_softmax"
    )
    parser.add_argument("--negatives", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=128)
    add_shared_options(parser)
    return parser.parse_known_args(arguments)


def main() -> None:
    """Train, write the lists and compare them."""
    compare(RECTOOLS, *read_options(sys.argv[1:]))
