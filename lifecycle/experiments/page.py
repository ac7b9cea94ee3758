"""A report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lifecycle.experiments import charts
from lifecycle.experiments.metrics import WORDS
from lifecycle.experiments.verdict import DO_NOT_TRUST
from lifecycle.experiments.words import RULES, between, chance, notes, number, percent, split_words

_WIDTH: Final = 160
"""Of the drawing of an interval, in its own units."""


def render_page(report: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        report: of `analyse`, or read back from report.json.
    """
    environment = Environment(
        loader=PackageLoader("lifecycle.experiments", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(number=number, percent=percent, chance=chance)
    primary = report["primary"]
    return environment.get_template("report.html.jinja").render(
        report=report,
        broken=report["verdict"]["verdict"] == DO_NOT_TRUST,
        rule=RULES[report["decision"]],
        split=split_words(report),
        notes=list(notes(report)),
        words=WORDS,
        between=between,
        places={arm: _places(rows) for arm, rows in report["effects"].items()},
        width=_WIDTH,
        by_date=Markup(charts.lift_by_date(report["by_date"], primary)),  # noqa: S704 - drawn here
        novelty={
            arm: Markup(charts.novelty(found["days"], primary, arm))  # noqa: S704 - drawn here
            for arm, found in report["novelty"].items()
        },
    )


def _places(rows: Mapping[str, Mapping[str, Any] | None]) -> dict[str, dict[str, float] | None]:
    """Return where each lift's interval is drawn, in 0..`_WIDTH` with 0 in the middle, all on one scale."""
    known = {name: row for name, row in rows.items() if row and row["lift_low"] is not None}
    reach = (
        max((abs(row[end]) for row in known.values() for end in ("lift_low", "lift_high")), default=1.0)
        or 1.0
    )

    def place(value: float) -> float:
        return round(_WIDTH / 2 * (1 + 0.95 * value / reach), 1)

    return {
        name: {"low": place(row["lift_low"]), "high": place(row["lift_high"]), "at": place(row["lift"])}
        if (row := known.get(name))
        else None
        for name in rows
    }
