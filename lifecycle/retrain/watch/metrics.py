"""Errors, latency and degradation of the servers between two scrapes of their metrics."""

from __future__ import annotations

import http.client
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_SECONDS: Final = 5.0
ERRORS: Final = frozenset(
    {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
)
"""Codes of calls that failed by the server's fault."""
USUAL: Final = "none"
"""Degradation of a list that nothing is missing from."""
_CALLS: Final = "shelfwise_call_seconds"
_LISTS: Final = "shelfwise_lists"
_UNOBSERVED: Final = frozenset({"GetStatus"})
"""Methods that watching calls itself."""


@dataclass(frozen=True)
class Scrape:
    """Counters of one or several servers, or their growth between two scrapes."""

    codes: dict[str, float] = field(default_factory=dict)
    """Calls by code."""
    slow: dict[str, dict[str, float]] = field(default_factory=dict)
    """Method -> upper bound of a bucket in seconds, as text -> calls that took no longer."""
    lists: dict[str, float] = field(default_factory=dict)
    """Lists by degradation."""

    @property
    def _counters(self) -> dict[tuple[str, ...], float]:
        """Every counter by kind and labels."""
        return {
            **{("code", code): count for code, count in self.codes.items()},
            **{("list", degradation): count for degradation, count in self.lists.items()},
            **{("slow", m, le): count for m, counts in self.slow.items() for le, count in counts.items()},
        }

    @property
    def calls(self) -> int:
        """All calls."""
        return round(sum(self.codes.values()))

    @property
    def errors(self) -> int:
        """Calls that failed by a server's fault."""
        return round(sum(count for code, count in self.codes.items() if code in ERRORS))

    @property
    def all_lists(self) -> int:
        """All lists."""
        return round(sum(self.lists.values()))

    @property
    def degraded(self) -> int:
        """Lists that something was missing from."""
        return round(sum(count for rung, count in self.lists.items() if rung != USUAL))

    def calls_of(self, method: str) -> int:
        """Return the calls of a method."""
        return round(max(self.slow.get(method, {}).values(), default=0.0))

    def quantile(self, method: str, share: float) -> float:
        """Return a quantile of the seconds of a method's calls, by linear interpolation within its bucket.

        As `histogram_quantile` of Prometheus; beyond the last finite bound it is that bound.
        """
        bounds = sorted((float(bound), count) for bound, count in self.slow[method].items())
        wanted, below, before = share * bounds[-1][1], 0.0, 0.0
        for bound, count in bounds:
            if count >= wanted and count > before:
                if bound == float("inf"):
                    return below
                return below + (bound - below) * (wanted - before) / (count - before)
            below, before = bound, count
        return below

    def slower_than(self, method: str, seconds: float) -> int:
        """Return the calls of a method that took surely longer: more than the first bound from there on."""
        bounds = sorted((float(bound), count) for bound, count in self.slow[method].items())
        within = next(count for bound, count in bounds if bound >= seconds)
        return round(bounds[-1][1] - within)

    def plus(self, other: Scrape) -> Scrape:
        """Return the sum of two servers' counters."""
        methods = {*self.slow, *other.slow}
        return Scrape(
            _sum(self.codes, other.codes),
            {m: _sum(self.slow.get(m, {}), other.slow.get(m, {})) for m in methods},
            _sum(self.lists, other.lists),
        )

    def since(self, earlier: Scrape) -> Scrape:
        """Return the growth of one server's counters; after a restart, which resets them, all of them."""
        now = self._counters
        if any(now.get(key, 0.0) < count for key, count in earlier._counters.items()):
            return self
        return Scrape(
            _difference(self.codes, earlier.codes),
            {m: _difference(counts, earlier.slow.get(m, {})) for m, counts in self.slow.items()},
            _difference(self.lists, earlier.lists),
        )

    def record(self) -> dict[str, Any]:
        """Return the counters as JSON values."""
        return asdict(self)


def _sum(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {key: a.get(key, 0.0) + b.get(key, 0.0) for key in {*a, *b}}


def _difference(later: Mapping[str, float], earlier: Mapping[str, float]) -> dict[str, float]:
    return {key: count - earlier.get(key, 0.0) for key, count in later.items()}


def total(scrapes: Sequence[Scrape]) -> Scrape:
    """Return the sum over servers."""
    found = Scrape()
    for scrape in scrapes:
        found = found.plus(scrape)
    return found


def read_metrics(text: str) -> Scrape:
    """Return the counters in a page of metrics."""
    codes: dict[str, float] = defaultdict(float)
    lists: dict[str, float] = defaultdict(float)
    slow: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if labels.get("method") in _UNOBSERVED:
                continue
            if sample.name == f"{_CALLS}_count":
                codes[labels["code"]] += sample.value
            elif sample.name == f"{_CALLS}_bucket":
                slow[labels["method"]][labels["le"]] += sample.value
            elif sample.name == f"{_LISTS}_total":
                lists[labels["degradation"]] += sample.value
    return Scrape(dict(codes), {method: dict(counts) for method, counts in slow.items()}, dict(lists))


def scrape(address: str) -> Scrape | str:
    """Return the counters of a server, or why there are none."""
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - http by setting
            return read_metrics(answer.read().decode("utf-8"))
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return f"{address}: {error}"
