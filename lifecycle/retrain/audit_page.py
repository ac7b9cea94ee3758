"""The audit file as a page, and the page that lists the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final

from features.data.pipeline_step import write_atomically
from lifecycle.retrain.journal import Journal, journals
from ranking.comparison.page import WIDTH, environment, interval_places

RUN_TEMPLATE: Final = "audit.html.jinja"
LIST_TEMPLATE: Final = "nights.html.jinja"
INDEX: Final = "index.html"
TITLES: Final = {
    None: "Not finished",
    "published": "Published",
    "refused": "Refused",
    "too_little": "Too little new data",
    "rolled_back": "Rolled back",
    "bad_input": "Bad input",
    "fault": "Fault",
    "abandoned": "Abandoned",
}
"""Outcome -> headline."""
COLOURS: Final = {"published": "gain", "too_little": "soft", None: "warning", "abandoned": "warning"}
"""Outcome -> class of the headline; the others are losses."""
_CHART: Final = (640, 90)
"""Width and height of the chart of days, in its own units."""


def _render(template: str, **values: Any) -> str:  # noqa: ANN401 - JSON
    made = environment()
    made.filters["count"] = lambda value: "–" if value is None else f"{value:,}"
    made.filters["duration"] = duration
    made.filters["flat"] = flat
    made.globals.update(titles=TITLES, colours=COLOURS, width=WIDTH)
    style = resources.files("lifecycle.retrain").joinpath("audit.css.jinja").read_text(encoding="utf-8")
    source = resources.files("lifecycle.retrain").joinpath(template).read_text(encoding="utf-8")
    return made.from_string(source).render(style=style, **values)


def duration(seconds: float | None) -> str:
    """Return seconds in words: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return nested settings by their full names."""
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found += flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def seconds_of_run(content: Mapping[str, Any]) -> float | None:
    """Return how long a run took from its beginning to its end, interruptions included."""
    if content["finished"] is None:
        return None
    begun, ended = (datetime.fromisoformat(content[key]) for key in ("started", "finished"))
    return (ended - begun).total_seconds()


def _bars(days: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the bars of the chart of events by day."""
    width, height = _CHART
    most = max((int(count) for _, count in days), default=1)
    step = width / max(len(days), 1)
    return [
        {
            "x": round(step * place, 1),
            "width": round(step * 0.8, 1),
            "height": round(height * int(count) / most, 1),
            "y": round(height * (1 - int(count) / most), 1),
            "title": f"{day}: {int(count):,}",
        }
        for place, (day, count) in enumerate(days)
    ]


def render_run(content: Mapping[str, Any]) -> str:
    """Return the page of a run, from the content of its audit file, finished or not."""
    steps = content["steps"]
    comparison = steps.get("publish", {}).get("comparison")
    return _render(
        RUN_TEMPLATE,
        run=content,
        steps=steps,
        seconds=seconds_of_run(content),
        bars=_bars(steps.get("prepare", {}).get("events_by_day", [])),
        chart=_CHART,
        comparison=comparison,
        places=interval_places(comparison["metrics"]) if comparison else {},
    )


def render_list(runs: Sequence[Journal]) -> str:
    """Return the page that lists the runs, newest first."""
    rows = [
        {
            **{key: journal.content[key] for key in ("run", "outcome", "exit_code", "reason", "started")},
            "seconds": seconds_of_run(journal.content),
            "new_events": journal.steps.get("prepare", {}).get("new_events"),
            "ndcg": _metric(journal, "ndcg@10"),
        }
        for journal in reversed(runs)
    ]
    return _render(LIST_TEMPLATE, rows=rows)


def _metric(journal: Journal, name: str) -> Mapping[str, Any] | None:
    comparison = journal.steps.get("publish", {}).get("comparison")
    row: Mapping[str, Any] | None = comparison["metrics"].get(name) if comparison else None
    return row


def write_pages(journal: Journal) -> Path:
    """Write the page of a run and the list of all; return the first."""
    folder = journal.path.parent
    page = journal.path.with_suffix(".html")
    write_atomically(page, render_run(journal.content))
    write_atomically(folder / INDEX, render_list(journals(folder)))
    return page
