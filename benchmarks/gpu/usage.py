"""GPU utilisation, sampled by nvidia-smi."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

INTERVAL_MS: Final = 100
_QUERY: Final = "--query-gpu=utilization.gpu,memory.used"


@dataclass
class GpuUsage:
    """Samples of one GPU, every tenth of a second."""

    busy: list[float] = field(default_factory=list)
    """Share of the last sampling period in which a kernel ran, 0 to 1."""
    memory_mib: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Return mean and 90th percentile of the busy share, and peak memory; nothing without samples."""
        if not self.busy:
            return {}
        ordered = sorted(self.busy)
        return {
            "busy_mean": round(sum(ordered) / len(ordered), 3),
            "busy_p90": round(ordered[int(0.9 * (len(ordered) - 1))], 3),
            "memory_mib": max(self.memory_mib),
        }


def parse_sample(line: str) -> tuple[float, float] | None:
    """Return utilisation and memory in MiB of a line of nvidia-smi; None where they are unsupported."""
    try:
        busy, memory = (float(part) for part in line.split(","))
    except ValueError:
        return None
    return busy / 100, memory


@contextmanager
def gpu_usage(card: int = 0) -> Iterator[GpuUsage]:
    """Sample a GPU while the block runs; without nvidia-smi there are no samples.

    Args:
        card: its number.
    """
    usage = GpuUsage()
    if shutil.which("nvidia-smi") is None:
        yield usage
        return
    command = [
        "nvidia-smi", f"--id={card}", _QUERY, "--format=csv,noheader,nounits", f"--loop-ms={INTERVAL_MS}",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def collect() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            sample = parse_sample(line)
            if sample is not None:
                usage.busy.append(sample[0])
                usage.memory_mib.append(sample[1])

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield usage
    finally:
        process.terminate()
        process.wait()
        thread.join()
