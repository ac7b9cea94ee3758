"""Runs `prepare`: `own_prepare RAW WORK PROFILE OUTPUT`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.bench.workers.measured import timed, top_functions
from conf.composition.compose import compose_command
from features.prepare import prepare


def main() -> None:
    """Prepare, and write the times and the counts."""
    raw, work, profile, output = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    shutil.rmtree(work, ignore_errors=True)
    config = compose_command(
        "prepare",
        [
            "data=files",
            f"data.items={raw}/items.parquet",
            f"data.events={raw}/events/*.parquet",
            f"work_dir={work}",
        ],
    )

    def run() -> object:
        with (output.with_suffix(".txt")).open("w") as file:
            return prepare(config, Console(file=file))

    result: dict[str, object] = {"profile": top_functions(run)} if profile else dict(timed(run)[1])
    info = json.loads((work / "dataset" / "dataset.json").read_text())
    files = (work / "dataset").rglob("*")
    result |= {
        "events": info["events"], "rejected": sum(info["rejects"]["events"].values()),
        "bytes_written": sum(path.stat().st_size for path in files if path.is_file()),
    }  # fmt: skip
    output.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
