"""The dataset of polars and that of Spark, compared; what each took.

    python -m benchmarks.spark_prepare --events 1000000 10000000 --folder /var/tmp/spark
    python -m benchmarks.spark_prepare --data completejourney

Generated shops are those of `benchmarks.growth`. The folder gets `spark.json`, and keeps the logs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
from polars.testing import assert_frame_equal
from rich.console import Console

from benchmarks.growth.shop import Shop, generate
from benchmarks.spark_prepare.cost import cost_of
from features.data import schema
from features.data.pipeline_step import write_atomically

_ENGINES = ("polars", "spark")
_CONSOLE = Console(highlight=False, soft_wrap=True)
_MAIN = Path(__file__).parents[2] / "shelfwise.py"


def differences(one: Path, other: Path) -> list[str]:
    """Return the tables and the facts in which two datasets differ.

    Args:
        one: folder of a dataset.
        other: folder of another one.
    """
    found = []
    for name in (schema.ITEMS_FILE, schema.EVENTS_FILE, schema.REJECTS_FILE):
        try:
            assert_frame_equal(pl.read_parquet(one / name), pl.read_parquet(other / name))
        except AssertionError:
            found.append(name)
    facts, others = (json.loads((f / schema.DATASET_FILE).read_text()) for f in (one, other))
    return found + [name for name in {**facts, **others} if facts.get(name) != others.get(name)]


def _compared(settings: list[str], folder: Path, master: str) -> dict[str, Any]:
    """Prepare with both engines, one after the other; return their costs and the differences."""
    costs: dict[str, Any] = {}
    for engine in _ENGINES:
        work = folder / engine
        work.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(_MAIN), "prepare", f"engine={engine}", f"work_dir={work}", *settings]
        if engine == "spark":
            command.append(f"spark.master={master}")
        _CONSOLE.print(" ".join(command[2:]), markup=False)
        costs[engine] = cost_of(command, work / "prepare.log", {}).__dict__
        _CONSOLE.print(f"  {costs[engine]}")
    costs["differences"] = differences(*(folder / engine / "dataset" for engine in _ENGINES))
    _CONSOLE.print(f"  differences: {costs['differences'] or 'none'}")
    return costs


def main() -> None:
    """Measure and compare; end with 1 where the datasets differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, nargs="*", default=[])
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--data", nargs="*", default=[], help="data sets: settings, joined by commas")
    parser.add_argument("--folder", type=Path, default=Path("work/spark"))
    parser.add_argument("--master", default="local[2]")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    runs = {f"data={data}".replace(",", " "): f"data={data}".split(",") for data in options.data}
    for events in options.events:
        shop = generate(Shop(options.items, events), folder / f"shop-{options.items}-{events}")
        tables = [f"data.items={shop}/items.parquet", f"data.events={shop}/events/*.parquet"]
        runs[f"{events} events"] = tables
    results = {}
    for number, (name, settings) in enumerate(runs.items()):
        results[name] = _compared(settings, folder / f"run-{number}", options.master)
        write_atomically(folder / "spark.json", json.dumps(results, indent=2) + "\n")
    if any(costs["differences"] for costs in results.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
