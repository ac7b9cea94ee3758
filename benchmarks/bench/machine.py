"""The machine's own limits, measured: memory bandwidth and the rate of matrix products.

Bandwidth by a copy of arrays far larger than the caches (STREAM; McCalpin 1995: two bytes moved per byte
copied), products of square matrices in fp32 and bf16 by oneDNN and in int8 by its packed products.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from encoders.device import CPU
from encoders.text.compiled_text_encoder import native_bf16

SIZE: Final = 1536
"""Rows and columns of the matrices."""
COPIED: Final = 64 * 2**20
"""Floats of a copied array (256 MiB)."""
REPEATS: Final = 5
PACKAGES: Final = ("torch", "transformers", "polars", "numpy", "faiss-cpu", "openvino")


def least_seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the least wall time of repeated work, after a warm-up: other load only makes it longer."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def copy_rate() -> float:
    """Return bytes read and written per second by a copy on all threads."""
    source = torch.zeros(COPIED)
    target = torch.empty_like(source)
    return 2.0 * 4 * COPIED / least_seconds(lambda: target.copy_(source))


def product_rate(dtype: torch.dtype) -> float:
    """Return floating-point operations per second of a product of square matrices."""
    a, b = (torch.randn(SIZE, SIZE).to(dtype) for _ in range(2))
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        packed = torch.ops.mkldnn._reorder_linear_weight(b, SIZE)
        work = lambda: torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], "")  # noqa: E731
    else:
        work = lambda: a @ b  # noqa: E731
    with torch.no_grad():
        return 2.0 * SIZE**3 / least_seconds(work)


def int8_rate() -> float:
    """Return operations per second of a product of unsigned with signed bytes; 0 where torch has none."""
    try:
        a = torch.randint(0, 127, (SIZE, SIZE), dtype=torch.uint8)
        weight = torch.randint(-127, 127, (SIZE, SIZE), dtype=torch.int8)
        packed = torch.ops.onednn.qlinear_prepack(weight, [SIZE, SIZE])
        scale, zero = torch.ones(SIZE), torch.zeros(SIZE, dtype=torch.int64)

        def work() -> object:
            return torch.ops.onednn.qlinear_pointwise(
                a, 1.0, 0, packed, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
            )

        return 2.0 * SIZE**3 / least_seconds(work)
    except (RuntimeError, AttributeError, TypeError):
        return 0.0


def describe(threads: int) -> dict[str, Any]:
    """Return the processor, its limits measured with as many threads as the rows have, and versions.

    The rate in bf16 is 0 where the processor has no instructions for it.
    """
    torch.set_num_threads(threads)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "memory_gib": pages / 2**30,
        "copy_gb_s": copy_rate() / 1e9,
        "gflops_fp32": product_rate(torch.float32) / 1e9,
        "gflops_bf16": product_rate(torch.bfloat16) / 1e9 if native_bf16(CPU) else 0.0,
        "gops_int8": int8_rate() / 1e9,
        "versions": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "python": platform.python_version(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "absent"
