"""Findings as a table on the terminal, as lint.json, and as a page, lint.html."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from conf.schema import Severity
from features.data.pipeline_step import write_atomically
from ranking.lint.findings import Finding, Worth
from ranking.lint.material import many

LINT_JSON: Final = "lint.json"
LINT_HTML: Final = "lint.html"
_COLOURS: Final = {Severity.serious: "bold red", Severity.warning: "yellow", Severity.note: "dim"}


def number(value: float) -> str:
    """Return a recall with four digits, without the zero before the point."""
    return f"{value:.4f}".replace("0.", ".", 1)


def signed(value: float) -> str:
    """Return a difference of recalls with its sign."""
    return ("+" if value >= 0 else "-") + number(abs(value))


def worth_in_words(worth: Worth) -> str:
    """Return the recall with and without a finding, and the interval of the difference."""
    return (
        f"recall@10 {number(worth.as_is)} as is, {number(worth.without)} without "
        f"({signed(worth.as_is - worth.without)}, {signed(worth.low)} to {signed(worth.high)})"
    )


def show(findings: Sequence[Finding], result: dict[str, Any], console: Console) -> None:
    """Print a table of the findings, and an explanation of those above a note."""
    counts = result["counts"]
    heading = (
        f"{many(len(findings), 'finding', 'findings')} of {len(result['checks'])} checks: "
        f"{counts['serious']} "
        f"serious, {many(counts['warning'], 'warning', 'warnings')}, {many(counts['note'], 'note', 'notes')}"
    )
    table = Table(title=heading, title_justify="left")
    table.add_column("severity")
    table.add_column("finding", overflow="fold", ratio=3)
    table.add_column("recall@10 as is", justify="right")
    table.add_column("without", justify="right")
    table.add_column("difference", justify="right", min_width=18)
    for finding in findings:
        colour = _COLOURS[finding.severity]
        cells = ["", "", ""]
        if finding.worth is not None:
            worth = finding.worth
            cells = [
                number(worth.as_is),
                number(worth.without),
                f"{signed(worth.as_is - worth.without)}\n{signed(worth.low)} to {signed(worth.high)}",
            ]
        table.add_row(f"[{colour}]{finding.severity.name}[/]", escape(finding.title), *cells)
    console.print(table)
    for finding in findings:
        if finding.severity > Severity.note:
            _explain(finding, console)
    if not counts["serious"] and not counts["warning"]:
        console.print("nothing above a note")


def _explain(finding: Finding, console: Console) -> None:
    """Print example, meaning, worth and fix of one finding."""
    colour = _COLOURS[finding.severity]
    console.print(
        f"\n[{colour}]{finding.severity.name}[/] {escape(finding.title)}", soft_wrap=True, highlight=False
    )
    worth = finding.unmeasured
    if finding.worth is not None:
        unit = "queries" if finding.worth.paired else "queries, not paired"
        worth = f"{worth_in_words(finding.worth)}, {finding.worth.queries:,} {unit}: {finding.worth.model}"
    lines = (("e.g.", finding.example), ("why", finding.meaning), ("worth", worth), ("fix", finding.fix))
    for name, text in lines:
        if text:
            console.print(f"  {name:<6}{escape(text)}", soft_wrap=True, highlight=False)


def write(folder: Path, findings: Sequence[Finding], result: dict[str, Any]) -> Path:
    """Write lint.json and lint.html into a folder, which is made if missing; return the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / LINT_HTML, page(findings, result))
    write_atomically(folder / LINT_JSON, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return folder / LINT_HTML


def page(findings: Sequence[Finding], result: dict[str, Any]) -> str:
    """Return a page that stands alone: no script, no request."""
    environment = Environment(
        loader=PackageLoader("ranking.lint", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["recall"] = number
    environment.filters["signed"] = signed
    return environment.get_template("lint.html.jinja").render(findings=findings, result=result)


def warn(findings: Sequence[Finding], console: Console) -> None:
    """Print serious findings in a line each, without any id, and the command that measures them."""
    for finding in findings:
        console.print(f"[bold red]leak?[/bold red] {escape(finding.title)}", soft_wrap=True, highlight=False)
    if findings:
        console.print(
            "`shelfwise lint-data` with the same settings says what this is worth in recall, and what to do"
        )
