"""Typed configuration of a warm start: how much is trained where training begins with earlier weights."""

from __future__ import annotations

from dataclasses import dataclass

from conf.checks import at_least, require


@dataclass(frozen=True)
class WarmConfig:
    """Training that begins with the weights of `warm_start`; without effect where that is null.

    A part whose weights cannot be taken over is trained from the beginning, by its own settings.
    """

    text_steps: int = 0
    """Optimiser steps of the text encoder. 0 keeps it as it is, and so its vectors: only texts that the
    source has not seen are embedded."""
    affinity_steps: int = 0
    """Steps of the affinity map, from the beginning; 0 keeps it where the text encoder is kept, and takes
    `text_encoder.affinity_steps` where it is trained further."""
    tower_epochs: int = 1
    """Most epochs of the item and the user tower; 0 keeps their weights, and an item that the source has not
    seen is represented by its text."""
    ranker_epochs: int = 4
    """Most epochs of the ranking head; 0 keeps it."""
    learning_rate: float = 0.5
    """Multiple of every part's own learning rate."""

    def __post_init__(self) -> None:
        """Check ranges."""
        at_least(0, self, "warm.", "text_steps", "affinity_steps", "tower_epochs", "ranker_epochs")
        require(self.learning_rate > 0, "warm.learning_rate must be positive")
