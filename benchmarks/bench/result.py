"""What a row of the table found, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Line:
    """One comparison: this project's figure, another one's, and the bar for their ratio."""

    what: str
    unit: str
    own: float
    beside: str = ""
    """The other side."""
    other: float | None = None
    bar: float | None = None
    """Least ratio, or for a figure alone the largest value, the least where more is better."""
    more_is_better: bool = True
    note: str = ""
    reached: bool = True
    """False where this project did not get to what is compared; its figure is then how long it tried."""

    @property
    def ratio(self) -> float | None:
        """How many times as good as the other side; None without one, or without an end."""
        if not self.reached or self.other is None or not self.own or not self.other:
            return None
        return self.own / self.other if self.more_is_better else self.other / self.own

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; None without a bar."""
        if self.bar is None:
            return None
        if self.other is not None:
            return self.ratio is not None and self.ratio >= self.bar
        return self.own >= self.bar if self.more_is_better else self.own <= self.bar


@dataclass(frozen=True)
class RowResult:
    """A row of the table."""

    work: str
    lines: Sequence[Line]
    limit: str = ""
    """Distance to the machine's limit, with the arithmetic."""
    profile: Sequence[str] = ()
    """Functions with the largest share of the time, largest first."""
    details: Mapping[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Return JSON values, ratios and verdicts included."""
        lines = [{**asdict(line), "ratio": line.ratio, "met": line.met} for line in self.lines]
        return {
            "work": self.work, "lines": lines, "limit": self.limit, "profile": list(self.profile),
            "details": dict(self.details),
        }  # fmt: skip


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def verdict(line: Mapping[str, Any]) -> str:
    """Return the bar of a line and whether it is reached."""
    if line["bar"] is None:
        return ""
    if line["other"] is not None:
        bar = f"{line['bar']:g} x"
    else:
        bar = f"{'at least ' if line['more_is_better'] else ''}{line['bar']:g} {line['unit']}"
    return f"{bar}: {'met' if line['met'] else 'missed'}"


def _cells(*cells: object) -> str:
    """Return a row of a Markdown table; a bar or a new line inside a cell would end it."""
    return "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in cells) + " |"


def to_markdown(
    rows: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], command: str, scale: float = 1.0
) -> str:
    """Return the table, the limits, the profiles and the times of the rows; failures are lines, too."""
    trial = [f"**A trial at {scale:g} of the full size: its figures say nothing about speed.**", ""]
    rate = machine["gflops_bf16"]
    bf16 = f"bf16 {rate:,.0f}" if rate else "bf16 none (the processor has no instructions for it: left out)"
    text = [
        "```", command, "```", "", *(trial if scale < 1 else ()),
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB. "
        f"Measured in the same run with {machine['threads']} threads: "
        f"{machine['copy_gb_s']:.0f} GB/s of memory (copy), products of matrices in "
        f"fp32 {machine['gflops_fp32']:,.0f}, {bf16}, "
        f"int8 {machine['gops_int8']:,.0f} GFLOP/s. {machine['versions']}.", "",
        "| work | shelfwise | beside | ratio | bar |", "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in rows:
        if "failed" in row:
            text.append(_cells(row["work"], f"not measured: {row['failed']}", "", "", ""))
        for line in row.get("lines", ()):
            beside = "" if line["other"] is None else f"{line['beside']}: {_number(line['other'])}"
            ratio = "" if line["ratio"] is None else f"{line['ratio']:.2f}"
            note = f" ({line['note']})" if line["note"] else ""
            tried = "" if line["reached"] else "not reached in "
            own = f"{tried}{_number(line['own'])} {line['unit']}{note}"
            text.append(_cells(f"{row['work']}: {line['what']}", own, beside, ratio, verdict(line)))
    text += ["", "| work | distance to the machine's limit | where the time goes |", "| --- | --- | --- |"]
    for row in rows:
        if row.get("limit") or row.get("profile"):
            text.append(_cells(row["work"], row["limit"], "; ".join(row["profile"])))
    taken = {row["work"]: row["row_seconds"] / 60 for row in rows if "row_seconds" in row}
    if taken:
        each = ", ".join(f"{name} {minutes:.1f}" for name, minutes in taken.items())
        text += ["", f"Minutes: {each}; {sum(taken.values()):.1f} in all."]
    kept = [f"{row['work']} ({row['measured']})" for row in rows if row.get("kept")]
    if kept:
        text += ["", f"Measured by an earlier call: {', '.join(kept)}."]
    return "\n".join([*text, ""])
