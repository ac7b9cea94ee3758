"""The checks in order, and what a run of them returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from conf.errors import InputError
from conf.schema import Severity
from features.data.dataset import Dataset
from ranking.lint import attributes, copies, ids, moments, order, people, protocol, relisted, texts
from ranking.lint.findings import Finding
from ranking.lint.material import Material
from ranking.lint.worth import Yardstick

Check = Callable[[Material], Iterator[Finding]]


@dataclass(frozen=True)
class _Row:
    """A check in the table."""

    about: str
    """What it looks for, in one phrase."""
    find: Check
    quick: bool = False
    """Whether `run` makes it, without measuring: it takes milliseconds."""


CHECKS: Final = (
    _Row("events later than the present or before 1990", moments.impossible_times, quick=True),
    _Row("event times that contradict the order of events", moments.contradicted_times, quick=True),
    _Row("events on the wrong side of a cut", moments.windows, quick=True),
    _Row("training events later than the queries (leave-one-out)", moments.others_later),
    _Row("rows that are repeated, within training or across the cut", copies.repeated_rows, quick=True),
    _Row("test targets copied into histories", copies.copied_targets, quick=True),
    _Row("users that are copies of other users", copies.copied_users),
    _Row("sessions of several users", copies.shared_sessions),
    _Row("order within equal times", order.order_of_ties, quick=True),
    _Row("equal times sorted by catalogue row", order.sorted_ties),
    _Row("the same product under two ids", relisted.same_products),
    _Row("item rows and ids that encode the first sale", ids.item_order),
    _Row("item rows that follow the histories", ids.following_ids),
    _Row("user ids that encode time", ids.user_order),
    _Row("phrases on sales in texts", texts.sales_phrases),
    _Row("dates after the cut in texts", texts.later_dates),
    _Row("co-purchases in texts", texts.bought_together),
    _Row("texts nearer to test targets than to validation targets", texts.nearer_answers),
    _Row("attributes that count sales", attributes.counting_attributes),
    _Row("attributes that list co-purchased items", attributes.related_items),
    _Row("item rows written after the cut", attributes.later_versions),
    _Row("catalogue prices of after the cut", attributes.later_prices),
    _Row("bots, tills and guest accounts", people.people, quick=True),
    _Row("targets on the day of the last known event", protocol.same_day_targets),
    _Row("items in nearly every history", protocol.ubiquitous_items),
    _Row("test queries without history", protocol.unknown_users),
    _Row("k-core that counted test events", protocol.core_filter),
)


def lint(material: Material, yardstick: Yardstick | None = None) -> list[Finding]:
    """Return the findings of every check, the gravest first, then by what they are worth.

    Args:
        material: dataset and split.
        yardstick: measures what findings are worth; None leaves that out.
    """
    found = [finding for row in CHECKS for finding in row.find(material)]
    if yardstick is not None:
        found = [_measured(finding, yardstick) for finding in found]
    return sorted(
        found, key=lambda f: (-f.severity, -abs(f.worth.as_is - f.worth.without) if f.worth else 0.0)
    )


def _measured(finding: Finding, yardstick: Yardstick) -> Finding:
    """Return a finding with its worth; data that cannot be divided without it have none."""
    try:
        return finding.measured(yardstick)
    except InputError as error:
        return replace(finding, unmeasured=f"nothing is left to measure on without it ({error})")


def quick_lint(material: Material) -> list[Finding]:
    """Return the serious findings of the checks that take milliseconds, not measured."""
    found = [finding for row in CHECKS if row.quick for finding in row.find(material)]
    return [finding for finding in found if finding.severity is Severity.serious]


def as_result(findings: list[Finding], material: Material, yardstick: Yardstick | None) -> dict[str, Any]:
    """Return the content of lint.json: JSON values."""
    dataset: Dataset = material.dataset
    return {
        "format_version": 1,
        "split": material.split.kind.value,
        "dataset_hash": dataset.info.get("content_hash"),
        "items": material.items,
        "users": material.events.users,
        "events": len(material.events),
        "test_queries": len(material.split.test),
        "exclude_seen": material.exclude_seen,
        "measured": yardstick is not None,
        "measured_queries": len(yardstick.users) if yardstick is not None else 0,
        "seed": material.config.seed,
        "checks": [row.about for row in CHECKS],
        "counts": {s.name: sum(f.severity is s for f in findings) for s in reversed(Severity)},
        "findings": [finding.plain() for finding in findings],
    }
