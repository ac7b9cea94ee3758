"""Models of RecBole on the same data, split, exclusion and catalogue, with RecBole's training and defaults.

    shelfwise prepare data=recbole data.items=ml-100k.item data.events=ml-100k.inter work_dir=work/movies
    python -m benchmarks.recbole_models --model SASRec split=leave_one_out work_dir=work/movies

creates an environment for RecBole beside the results (downloaded once), trains there, and measures the lists
with this project's metrics. SASRecF and FDSA read the words of the items' texts. `--set` changes any setting
of RecBole's. Options precede the overrides; overrides are those of `shelfwise evaluate`.
"""

from __future__ import annotations

import argparse
import sys

from omegaconf import OmegaConf

from benchmarks.outside import Outsider, add_shared_options, compare

RECBOLE = Outsider("RecBole", "recbole_models")


def read_options(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the benchmark's options, and the overrides after them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recbole_models")
    parser.add_argument(
        "--model",
        default="SASRec",
        choices=["SASRec", "GRU4Rec", "BERT4Rec", "LightSANs", "SASRecF", "FDSA"],
    )
    parser.add_argument("--max-length", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--set", action="append", default=[], help="key=value, a setting of RecBole's")
    add_shared_options(parser)
    parser.set_defaults(epochs=300)
    options, overrides = parser.parse_known_args(arguments)
    options.set = OmegaConf.to_container(OmegaConf.from_dotlist(options.set))
    return options, overrides


def main() -> None:
    """Train, write the lists and compare them."""
    compare(RECBOLE, *read_options(sys.argv[1:]))
