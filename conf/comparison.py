"""Typed configuration of publish and compare: a map of the items, guards, and what is compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from conf.checks import at_least, check_device, require
from conf.guards import read_guards


@dataclass(frozen=True)
class PublishConfig:
    """What a bundle holds for people who look at it, and the condition of its publication."""

    map: bool = True
    """Whether a bundle holds a two-dimensional map of its items, which the explorer shows; needs the extra
    `map`. Seconds for ten thousand items, minutes for a million."""
    gate: Any = None
    """Guards that a new bundle must hold against the current one, on the test window, before it becomes
    current: a list (`'publish.gate=[{metric: ndcg@10, loss: 2%}]'`) or a YAML file with one. Null publishes
    without a comparison."""

    def __post_init__(self) -> None:
        """Check guards that are written out; a file is read when it is needed."""
        if not isinstance(self.gate, str):
            read_guards(self.gate, "publish.gate")


@dataclass(frozen=True)
class CompareConfig:
    """Root of compare, which measures two systems on the same queries."""

    systems: list[str] = field(default_factory=list)
    """The two systems, the present one first; named without a key on the command line. Each is a store, a
    version of it (`STORE@VERSION`), the folder of a version, a work directory, or a file of predictions."""
    work_dir: str | None = None
    """Work directory with the dataset and the protocol; null is the one that the second system belongs to, or
    the first."""
    output: str = "comparison"
    """Folder of compare.json and compare.html."""
    guards: Any = None
    """Largest losses: a list such as `'guards=[{metric: ndcg@10, loss: 2%}]'`, or a YAML file with one. A
    broken guard ends the command with exit code 3."""
    metrics: list[str] = field(
        default_factory=lambda: ["recall@10", "ndcg@10", "hit@10", "mrr", "map@10", "recall@100"]
    )
    """Metrics of the table; their p-values are corrected together."""
    leakage: bool = False
    """Whether to compare even where a bundle has learned from the measured window."""
    shoppers: int = 20
    """Users shown whose lists differ most."""
    max_users: int = 0
    """Queries of a seeded sample; 0 takes those of the protocol."""
    bootstrap: int = 1000
    """Bootstrap samples behind each confidence interval."""
    seed: int = 0
    """Seed of the bootstrap, the permutations and the sample."""
    threads: int = 0
    """CPU threads of torch and FAISS; 0 takes every core."""
    device: str = "auto"
    """Where the arithmetic runs: `cpu`, `cuda`, `cuda:1`, or `auto`, the first GPU where there is one."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(1, self, "", "bootstrap")
        at_least(0, self, "", "shoppers", "max_users", "seed", "threads")
        require(len(self.metrics) > 0, "metrics must name at least one metric")
        check_device(self.device)
        if not isinstance(self.guards, str):
            read_guards(self.guards, "guards")
