"""Results as rows of a table, sentences and a Markdown page."""

from __future__ import annotations

from typing import Any, Final

HEADER: Final = ("items", "what", "per second", "p50 ms", "p95 ms", "p99 ms", "failed", "share of echo")


def rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return the cells of the table."""
    found = []
    for items, cells in results["sizes"].items():
        for name, cell in cells.items():
            if not isinstance(cell, dict) or "p99_ms" not in cell:
                continue
            kind, _, callers = name.partition("_")
            echo = cells.get(f"echo_{callers}")
            share = f"{cell['per_second'] / echo['per_second']:.0%}" if kind == "callers" and echo else ""
            numbers = (f"{cell[f'{p}_ms']:.1f}" for p in ("p50", "p95", "p99"))
            what = {"callers": f"{callers} callers", "rate": f"{callers} calls a second, by the clock"}.get(
                kind, name.replace("_", " ")
            )
            found.append(
                (f"{int(items):,}", what, f"{cell['per_second']:.0f}", *numbers, str(cell["failed"]), share)
            )
    return found


def facts(results: dict[str, Any]) -> list[str]:
    """Return the results beside the table, a sentence each."""
    found = []
    for items, cells in results["sizes"].items():
        at = f"{int(items):,} items"
        found.append(
            f"{at}: {cells['start_mib']:,} MiB after the start, {cells['peak_mib']:,} MiB at the peak of the "
            f"quiet load, {cells['peak_mib_after_all']:,} MiB at the peak of everything; "
            f"{cells['candidates']:.0f} candidates a list, responses of {cells['response_bytes']:,} bytes."
        )
        if "freshness" in cells:
            for name, what in (
                ("event_to_list", "event to changed list"),
                ("upsert_to_found", "upsert to found"),
            ):
                cell = cells["freshness"][name]
                found.append(f"{at}: {what} {cell['p50_ms']:.1f} ms (p50), {cell['p99_ms']:.1f} ms (p99).")
        if "churn" in cells:
            beside = {n: cells["churn"][n] for n in ("events", "upserts")}
            told = (
                f"{c['failed']} of {c['calls']} {n} failed, p99 {c['p99_ms']:.1f} ms"
                for n, c in beside.items()
            )
            found.append(f"{at}, churn: {'; '.join(told)}; {_memory_fact(cells['churn']['rss_mib'])}.")
        if "overload" in cells:
            cell = cells["overload"]
            found.append(
                f"{at}, overload: {cell['rate']:.0f} calls/s against {cell['sustained']:.0f}; "
                f"{cell['shed_share']:.0%} shed, answered ones p99 {cell['p99_ms']:.1f} ms; "
                f"{_memory_fact(cell['rss_mib'])}; usual again after {cell['recovered_after_seconds']:.2f} s."
            )
    return found


def _memory_fact(rss: dict[str, float]) -> str:
    return f"memory {rss['before']:.0f} MiB before, {rss['largest']:.0f} at most, {rss['after']:.0f} after"


def page(results: dict[str, Any]) -> str:
    """Return the results as a Markdown page."""
    lines = [
        "# Serving under load",
        "",
        f"{results['machine']['cpus']} CPUs, {results['seconds']:g} s per cell",
        "",
    ]
    lines += ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    lines += ["| " + " | ".join(row) + " |" for row in rows(results)]
    return "\n".join([*lines, "", *(f"- {fact}" for fact in facts(results)), ""])
