"""A report on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lifecycle.experiments.verdict import DO_NOT_TRUST, GO_ON, SHIP, STOP
from lifecycle.experiments.words import RULES, between, chance, notes, number, percent, split_words

STYLES: Final = {SHIP: "bold green", GO_ON: "bold yellow", STOP: "bold red", DO_NOT_TRUST: "bold red"}


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print the verdict, the split, the arms, and the effects unless they cannot be trusted."""
    verdict, period = report["verdict"], report["period"]

    def line(text: str, style: str = "") -> None:
        console.print(text, style=style, soft_wrap=True, markup=False, highlight=False)

    line(f"{report['experiment']}: {verdict['verdict']}", STYLES[verdict["verdict"]])
    for reason in verdict["reasons"]:
        line(f"  {reason}")
    line(
        f"{period['first_exposure']} to {period['last_event']}, {period['days']:g} days; "
        f"{RULES[report['decision']]}"
    )
    line(f"split: {split_words(report)}")
    for note in notes(report):
        line(f"note: {note}", "yellow")
    console.print(_arms(report))
    if verdict["verdict"] == DO_NOT_TRUST:
        line(
            "do not read the rest: the arms are not alike, so the effects are not shown here",
            STYLES[DO_NOT_TRUST],
        )
        return
    for arm in report["arms"]:
        console.print(_effects(report, arm))


def _arms(report: Mapping[str, Any]) -> Table:
    table = Table(title=f"arms, by {report['unit']}")
    table.add_column("arm")
    columns = ("units", "impressions", "clicks", "carts", "purchases", "value")
    for name in (*columns, "varied items"):
        table.add_column(name, justify="right")
    for arm, totals in report["totals"].items():
        cells = ["–" if name == "value" and report["missing"] else f"{totals[name]:,.0f}" for name in columns]
        table.add_row(Text(arm), *cells, f"{report['shown'][arm]['effective_items']:,.0f}")
    return table


def _effects(report: Mapping[str, Any], arm: str) -> Table:
    table = Table(title=f"{arm} against {report['control']}, {report['level']:.0%} intervals")
    for name in ("metric", report["control"], arm, "lift", "interval", "p", "variance"):
        table.add_column(Text(name), justify="left" if name == "metric" else "right")
    for name, row in report["effects"][arm].items():
        if row is None:
            table.add_row(name, *["–"] * 6)
            continue
        sure = row["low"] is not None and (row["low"] > 0 or row["high"] < 0)
        style = "" if not sure else "green" if row["difference"] > 0 else "red"
        table.add_row(
            Text(name, style="bold" if name == report["primary"] else ""),
            number(row["control"]), number(row["value"]), Text(percent(row["lift"]), style=style),
            between(row["lift_low"], row["lift_high"]), chance(row["p_corrected"]), percent(_change(row), 0),
        )  # fmt: skip
    return table


def _change(row: Mapping[str, Any]) -> float | None:
    return None if row["reduction"] is None else -row["reduction"]
