"""The state of a search engine outside of this process, for metrics, health and operators."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineStatus:
    """What one model's process sees of the Milvus that it searches."""

    works: bool
    """Whether lists search it: not from a failed search until the next successful probe."""
    failure: str = ""
    """Why it does not work; empty while it does."""
    failed_searches: int = 0
    """Searches that failed since the model was loaded, those included that were not answered in time."""
    timeouts: int = 0
    """Searches that were not answered in time since the model was loaded."""
    pending: int = 0
    """Changed items that it has not confirmed; they are searched in the model's process."""
    pending_seconds: float = 0.0
    """Age of the oldest such change."""
    refused: int = 0
    """Changed items that it cannot hold; they stay in the model's process."""
    untested: tuple[str, ...] = ()
    """Conditions of filters that it does not test, without their values, each with the reason."""
