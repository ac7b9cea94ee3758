"""The limits of the servers' errors, latency, degradation and clicks after a publication.

Each is a one-sided test, so that few calls break nothing. There are many looks: those before the last one use
the Haybittle-Peto boundary (p < .001; Haybittle 1971, Peto et al. 1976), which leaves the level of the last
one nearly as it is.
"""

from __future__ import annotations

from typing import Any, Final

from scipy import stats

from conf.lifecycle import WatchConfig
from lifecycle.retrain.watch.clicks import ClickSums, loss_statistic
from lifecycle.retrain.watch.metrics import Scrape

INTERIM_LEVEL: Final = 0.001
HELD: Final = "held"
BROKEN: Final = "broken"
NOT_JUDGED: Final = "not_judged"
_P99: Final = 0.99


def _guard(name: str, outcome: str, value: float | None, limit: float | None, line: str) -> dict[str, Any]:
    return {"name": name, "outcome": outcome, "value": value, "limit": limit, "line": f"{outcome}: {line}"}


def _above(count: int, total: int, limit: float, level: float) -> bool:
    """Return whether a share is above a limit at a level of significance, by the exact binomial test."""
    if limit >= 1:
        return False
    return bool(stats.binomtest(count, total, limit, alternative="greater").pvalue < level)


def metric_guards(before: Scrape, after: Scrape, config: WatchConfig, *, last: bool) -> list[dict[str, Any]]:
    """Judge what servers did since the publication.

    Args:
        before: counters of the servers from their start to the publication.
        after: growth since then.
        config: the limits.
        last: whether this is the last look.

    Returns:
        The guards, as the audit file keeps them.
    """
    level = 1 - config.confidence if last else INTERIM_LEVEL
    return [
        _errors(before, after, config, level),
        _degradation(before, after, config, level),
        *_latency(before, after, config, level),
    ]


def _errors(before: Scrape, after: Scrape, config: WatchConfig, level: float) -> dict[str, Any]:
    usual = before.errors / before.calls if before.calls >= config.min_calls else 0.0
    limit = max(config.max_error_ratio, usual)
    found = f"{after.errors:,} of {after.calls:,} calls failed by a server's fault"
    if after.calls < config.min_calls:
        return _guard(
            "errors", NOT_JUDGED, None, limit, f"{found}; judged from {config.min_calls:,} calls on"
        )
    share = after.errors / after.calls
    outcome = BROKEN if _above(after.errors, after.calls, limit, level) else HELD
    return _guard("errors", outcome, share, limit, f"{found} ({share:.2%}; limit {limit:.2%})")


def _degradation(before: Scrape, after: Scrape, config: WatchConfig, level: float) -> dict[str, Any]:
    found = f"{after.degraded:,} of {after.all_lists:,} lists are degraded"
    if min(before.all_lists, after.all_lists) < config.min_calls:
        line = (
            f"{found}, {before.all_lists:,} lists were made before; judged from {config.min_calls:,} lists on"
        )
        return _guard("degradation", NOT_JUDGED, None, None, line)
    limit = before.degraded / before.all_lists + config.max_degraded
    share = after.degraded / after.all_lists
    outcome = BROKEN if _above(after.degraded, after.all_lists, limit, level) else HELD
    return _guard("degradation", outcome, share, limit, f"{found} ({share:.1%}; limit {limit:.1%})")


def _latency(before: Scrape, after: Scrape, config: WatchConfig, level: float) -> list[dict[str, Any]]:
    guards = []
    for method in sorted(after.slow):
        if method not in before.slow or (
            min(before.calls_of(method), after.calls_of(method)) < config.min_calls
        ):
            continue
        usual, now = before.quantile(method, _P99), after.quantile(method, _P99)
        limit = config.max_p99_ratio * usual
        # The percentile is above the limit where more than one call in a hundred is slower than the limit.
        slower = after.slower_than(method, limit)
        outcome = BROKEN if _above(slower, after.calls_of(method), 1 - _P99, level) else HELD
        line = (
            f"{method}: 99 % of {after.calls_of(method):,} calls within {1000 * now:.1f} ms, before within "
            f"{1000 * usual:.1f} ms (limit {1000 * limit:.1f} ms)"
        )
        guards.append(_guard(f"latency of {method}", outcome, now, limit, line))
    if not guards:
        line = f"no method has {config.min_calls:,} calls before and after"
        guards.append(_guard("latency", NOT_JUDGED, None, None, line))
    return guards


def click_guard(old: ClickSums, new: ClickSums, config: WatchConfig) -> dict[str, Any]:
    """Judge the click-through rate of the new version against the one before."""
    if min(old.x, new.x) < config.min_impressions:
        line = (
            f"{new.x:,} impressions of the new version and {old.x:,} of the one before; judged from "
            f"{config.min_impressions:,} each on"
        )
        return _guard("clicks", NOT_JUDGED, None, None, line)
    statistic = loss_statistic(old, new, config.max_click_loss)
    limit = (1 - config.max_click_loss) * old.rate
    outcome = BROKEN if stats.norm.cdf(statistic) < 1 - config.confidence else HELD
    line = (
        f"{new.rate:.2%} of {new.x:,} impressions were clicked, before {old.rate:.2%} of {old.x:,} "
        f"(limit {limit:.2%})"
    )
    return _guard("clicks", outcome, new.rate, limit, line)
