"""A comparison on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES: Final = {"held": "green", "undecided": "yellow", "broken": "bold red"}
SIGNIFICANT: Final = 0.05
GAIN: Final = "green"
LOSS: Final = "red"


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.4f}"


def _p(value: float | None) -> str:
    return "–" if value is None else "< .001" if value < 0.001 else f"{value:.3f}"


def _difference(row: Mapping[str, Any]) -> Text:
    sure = row["p_holm"] is not None and row["p_holm"] < SIGNIFICANT
    return Text(
        _number(row["difference"], "+"), style="" if not sure else GAIN if row["difference"] > 0 else LOSS
    )


def _corrected(row: Mapping[str, Any]) -> str:
    return _p(row["p_holm"])


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(name, justify="left" if name == columns[0] else "right", no_wrap=True)
    return table


def print_comparison(result: Mapping[str, Any], console: Console) -> None:
    """Print the metrics, the slices, the likeness of the lists, the catalogues and the guards.

    Args:
        result: of `compare`.
        console: where to print.
    """
    window = result["window"]
    for key in ("a", "b"):
        about = result[key]["name"]
        console.print(f"{key.upper()}  {about}", soft_wrap=True, highlight=False, markup=False)
    for note in result["notes"]:
        style = "bold red" if note.startswith("LEAKAGE") else "yellow"
        console.print(f"! {note}", style=style, soft_wrap=True, highlight=False, markup=False)
    table = _table(
        f"{window['name']}, {window['split']}, {window['queries']:,} queries, all {window['items']:,} items",
        "metric", "A", "B", "B - A", "95 % interval", "p", "Holm p",
    )  # fmt: skip
    for name, row in result["metrics"].items():
        interval = f"{_number(row['low'], '+')}, {_number(row['high'], '+')}"
        table.add_row(
            name, _number(row["a"]), _number(row["b"]), _difference(row), interval, _p(row["p_value"]),
            _corrected(row),
        )  # fmt: skip
    for name, row in result["beyond_accuracy"].items():
        table.add_row(name, _number(row["a"]), _number(row["b"]), _number(row["difference"], "+"))
    console.print(table)
    slices = _table("recall@10 by slice", "slice", "queries", "A", "B", "B - A", "Holm p")
    for name, part in result["slices"].items():
        row = part["metrics"]["recall@10"]
        slices.add_row(
            name, f"{part['queries']:,}", _number(row["a"]), _number(row["b"]), _difference(row),
            _corrected(row),
        )  # fmt: skip
    console.print(slices)
    like = result["likeness"]
    console.print(
        f"lists: {like['overlap@10']['mean']:.1%} of the first ten in both, rank-biased overlap "
        f"{like['rank_biased_overlap']['mean']:.3f} (p = {like['persistence']}), "
        f"{like['same_first_ten']:.1%} have the same first ten in the same order",
        highlight=False,
    )
    items = result["catalogues"]
    if items["only_a"] or items["only_b"]:
        console.print(
            f"catalogues: {items['both']:,} items in both, {items['only_a']:,} only in A, "
            f"{items['only_b']:,} only in B",
            highlight=False,
        )
    for guard in result["guards"]:
        console.print(Text(guard["line"], style=_STYLES[guard["outcome"]]), soft_wrap=True)
