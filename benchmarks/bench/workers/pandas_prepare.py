"""The checks of `prepare` on clean columns, in pandas: `RAW WORK OUTPUT`. Imports nothing of shelfwise.

The same as `polars_prepare`, as a competent analyst writes it: whole columns at once, strings as Arrow keeps
them, no loop over rows.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from pathlib import Path

import pandas as pd

LATEST = 4_102_444_800
KINDS = ("view", "add_to_cart", "purchase")
LONGEST = 256


def peak_mib() -> float:
    """Return the peak resident memory of this program."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024


def prepare(raw: Path, work: Path) -> tuple[int, int]:
    """Write events.parquet and rejects.parquet; return their numbers of rows."""
    known = pd.read_parquet(raw / "items.parquet", columns=["item_id"], dtype_backend="pyarrow")[
        "item_id"
    ].unique()
    parts = []
    for path in sorted((raw / "events").glob("*.parquet")):
        part = pd.read_parquet(path, dtype_backend="pyarrow")
        parts.append(part.assign(file=pd.Categorical([path.name] * len(part)), row=range(len(part))))
    events = pd.concat(parts, ignore_index=True)
    del parts
    checks = {
        "no user": events["user_id"].isna() | (events["user_id"] == "").fillna(False),
        "user too long": (events["user_id"].str.len() > LONGEST).fillna(False),
        "no item": events["item_id"].isna() | (events["item_id"] == "").fillna(False),
        "unknown item": ~events["item_id"].isin(known),
        "unknown kind": ~events["event"].isin(KINDS),
        "impossible time": ~events["timestamp"].between(0, LATEST),
    }
    reason = pd.Series(pd.NA, index=events.index, dtype="string[pyarrow]")
    for name, bad in reversed(checks.items()):
        reason = reason.mask(bad.astype(bool), name)
    rejects = events[reason.notna()].assign(reason=reason[reason.notna()])
    good = events.loc[reason.isna(), ["user_id", "item_id", "event", "timestamp"]]
    good = good.sort_values(["user_id", "timestamp"], kind="stable")
    good.to_parquet(work / "events.parquet", index=False)
    rejects.to_parquet(work / "rejects.parquet", index=False)
    return len(good), len(rejects)


def main() -> None:
    """Prepare, and write the times and the counts."""
    raw, work, output = map(Path, sys.argv[1:])
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    began, cpu = time.perf_counter(), time.process_time()
    events, rejected = prepare(raw, work)
    result = {
        "seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu,
        "peak_mib": peak_mib(), "events": events, "rejected": rejected,
    }  # fmt: skip
    output.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
