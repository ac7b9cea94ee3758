"""`shelfwise off-policy`: what the lists of a file would have earned, from lists that were shown."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from conf.errors import InputError
from conf.off_policy import OffPolicyConfig
from features.data.pipeline_step import write_atomically
from ranking.comparison.predictions import read_lists
from ranking.off_policy.estimators import OffPolicy, estimate
from ranking.off_policy.log import Log, read_log

LEVEL: Final = 0.95
_ENOUGH: Final = 0.9
"""Support below which a warning is printed."""


def off_policy(config: OffPolicyConfig, console: Console) -> None:
    """Estimate, print, and write the figures where an output is named.

    Raises:
        InputError: an unreadable file, or nothing to estimate from.

    """
    if config.predictions is None:
        raise InputError("predictions=FILE must name the lists to be judged (user_id, rank, item_id)")
    log = read_log(config.events, read_lists(config.predictions), config.rewards)
    found = estimate(log.rounds, config.bootstrap, config.seed, LEVEL)
    for line in _lines(log, found):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(_table(found))
    if warning := _warning(found):
        console.print(warning, soft_wrap=True, highlight=False, style="yellow")
    if config.output is not None:
        figures = {
            "events": config.events,
            "predictions": config.predictions,
            "rewards": log.rewards,
            "impressions": log.impressions,
            "left_out": log.left_out,
            "confidence_level": LEVEL,
            **asdict(found),
        }
        write_atomically(Path(config.output), json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
        console.print(f"written to {config.output}", highlight=False)


def _lines(log: Log, found: OffPolicy) -> list[str]:
    lines = [
        f"{found.rounds:,} positions of lists of {found.users:,} users; rewards are {', '.join(log.rewards)}",
        *(f"left out: {count:,} impressions {reason}" for reason, count in log.left_out.items()),
        f"the log is worth {found.effective_rounds:,.0f} positions of these lists",
    ]
    return lines


def _table(found: OffPolicy) -> Table:
    """Return the estimates as a table."""
    table = Table(title=f"rewards per position, {LEVEL:.0%} intervals")
    for column in ("", "value", "interval", "gain", "interval"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("as shown", f"{found.logged:.4f}", "", "", "")
    for name, value in found.estimates.items():
        table.add_row(
            name.upper(),
            f"{value.value:.4f}",
            f"{value.low:.4f} to {value.high:.4f}",
            f"{value.gain:+.4f}",
            f"{value.gain_low:+.4f} to {value.gain_high:+.4f}",
        )
    return table


def _warning(found: OffPolicy) -> str:
    """Return what to distrust; empty where there is nothing."""
    if found.support_high < _ENOUGH:
        return (
            f"the log supports {found.support:.0%} of these lists ({found.support_low:.0%} to "
            f"{found.support_high:.0%}): the rest could not be on a page. IPS counts it as 0, SNIPS as the "
            "average, DR as its model says: explore more, or judge shorter lists (the last items of a list "
            "give way to explored ones)."
        )
    return ""
