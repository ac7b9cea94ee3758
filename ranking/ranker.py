"""The ranking head: a small multi-task network over candidate features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from features.dataset import FloatArray

RANKER_FILE = "ranker.safetensors"
RANKER_CONFIG = "ranker.json"
KNOTS = 32
ROWS = 2048
"""Candidates scored together: what is computed of them stays in the processor's cache."""


class QuantileScale(nn.Module):
    """Map each feature onto -1..1 by its quantiles, linearly in between.

    Counts, prices and days have long tails; a network learns from their ranks far more easily than from raw
    values (Gorishniy et al., NeurIPS 2022, arXiv:2203.05556, on encodings of numerical features).
    """

    knots: Tensor

    def __init__(self, features: int) -> None:
        """Build an unfitted scale."""
        super().__init__()
        self.register_buffer("knots", torch.linspace(-1, 1, KNOTS).repeat(features, 1))

    def fit(self, sample: FloatArray) -> None:
        """Set the knots from a sample [rows, features]."""
        quantiles = np.quantile(sample, np.linspace(0, 1, KNOTS), axis=0).T  # [features, knots]
        # Strictly increasing knots, so that a constant stretch has no zero width.
        spread = np.maximum(np.abs(quantiles).max(axis=1, keepdims=True), 1e-3) * 1e-5
        quantiles = np.maximum.accumulate(quantiles, axis=1) + spread * np.arange(KNOTS)
        self.knots.copy_(torch.from_numpy(quantiles.astype(np.float32)))

    def forward(self, features: Tensor) -> Tensor:
        """Scale [..., features]."""
        flat = features.reshape(-1, features.shape[-1]).T.contiguous()  # [features, rows]
        if torch.is_inference_mode_enabled() and flat.device.type == "cpu":
            scaled = torch.from_numpy(_scaled(self.knots.numpy(), flat.numpy()))
        else:
            right = torch.searchsorted(self.knots, flat).clamp(1, KNOTS - 1)
            low, high = self.knots.gather(1, right - 1), self.knots.gather(1, right)
            share = ((flat - low) / (high - low)).clamp(0.0, 1.0)
            scaled = 2.0 * ((right - 1) + share) / (KNOTS - 1) - 1.0
        return scaled.T.reshape(features.shape)


def _scaled(knots: FloatArray, values: FloatArray) -> FloatArray:
    """Return what `QuantileScale.forward` makes of values, [features, rows], a few times faster.

    The first half of a search for the interval is comparing with every fourth knot, the second looks knots
    up: neither alone is as fast as both.
    """
    first = KNOTS * np.arange(len(knots))[:, None]
    interval = np.zeros(values.shape, dtype=np.int8)
    above = np.empty(values.shape, dtype=np.bool_)
    for knot in range(4, KNOTS - 1, 4):
        np.greater(values, knots[:, knot, None], out=above)
        interval += above.view(np.int8)
    interval *= 4
    heights = knots.copy()
    heights[:, -1] = np.inf  # behind the last interval is none
    for step in (2, 1):
        np.greater(values, heights.take(interval + (first + step)), out=above)
        interval += above.view(np.int8) * np.int8(step)
    place = interval + first  # of the knot on the left, among those of all features
    widths = np.ones_like(knots)
    np.subtract(knots[:, 1:], knots[:, :-1], out=widths[:, :-1])
    share = values - knots.take(place)
    share /= widths.take(place)
    np.clip(share, 0.0, 1.0, out=share)
    share += interval
    share *= 2.0
    share /= KNOTS - 1
    share -= 1.0
    return share


class Ranker(nn.Module):
    """Scores candidates one by one: a rank score, calibrated probabilities of a click and of a purchase."""

    calibration: Tensor

    def __init__(self, features: list[str], hidden: list[int], dropout: float = 0.0) -> None:
        """Build the network for named features."""
        super().__init__()
        self.features = list(features)
        self.hidden = list(hidden)
        self.scale = QuantileScale(len(features))
        self.register_buffer("shift", torch.zeros(len(features)))
        self.register_buffer("width", torch.ones(len(features)))
        layers: list[nn.Module] = []
        size = 2 * len(features)
        for units in hidden:
            layers += [nn.Linear(size, units), nn.SiLU(), nn.Dropout(dropout)]
            size = units
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.Linear(size, 3)  # rank, click, purchase
        self.direct = nn.Linear(2 * len(features), 3, bias=False)
        self.register_buffer("calibration", torch.tensor([[1.0, 0.0], [1.0, 0.0]]))

    def fit_scale(self, sample: FloatArray) -> None:
        """Fit quantiles, mean and spread to a sample of features [rows, features]."""
        self.scale.fit(sample)
        self.get_buffer("shift").copy_(torch.from_numpy(sample.mean(axis=0)))
        self.get_buffer("width").copy_(torch.from_numpy(np.maximum(sample.std(axis=0), 1e-3)))

    def forward(self, features: Tensor) -> Tensor:
        """Return raw logits [..., 3] (rank, click, purchase) of features [..., features]."""
        standard = ((features - self.get_buffer("shift")) / self.get_buffer("width")).clamp(-4.0, 4.0)
        inputs = torch.cat([self.scale(features), standard], dim=-1)
        logits: Tensor = self.heads(self.trunk(inputs)) + self.direct(inputs)
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return calibrated P(click) and P(purchase), [..., 2], of raw logits [..., 3] (Platt scaling)."""
        scaled = logits[..., 1:] * self.calibration[:, 0] + self.calibration[:, 1]
        return torch.sigmoid(scaled)

    @torch.inference_mode()
    def score(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return rank scores [queries, candidates] and probabilities [queries, candidates, 2]."""
        flat = features.reshape(-1, features.shape[-1]).T  # [features, rows]
        blocks = [self._logits(flat[:, start : start + ROWS]) for start in range(0, flat.shape[1], ROWS)]
        logits = torch.cat(blocks).reshape(*features.shape[:-1], 3)
        return logits[..., 0].numpy(), self.probabilities(logits).numpy()

    def _logits(self, features: FloatArray) -> Tensor:
        """Return what `forward` does, [rows, 3], of features [features, rows], without turning them round."""
        shift, width = (self.get_buffer(name).numpy()[:, None] for name in ("shift", "width"))
        inputs = np.empty((2, *features.shape), dtype=np.float32)
        inputs[0] = _scaled(self.scale.knots.numpy(), np.ascontiguousarray(features))
        np.clip((features - shift) / width, -4.0, 4.0, out=inputs[1])
        rows = torch.from_numpy(inputs.reshape(-1, features.shape[1])).T
        logits: Tensor = self.heads(self.trunk(rows)) + self.direct(rows)
        return logits

    def save(self, folder: Path) -> None:
        """Write weights and feature names."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: t.contiguous() for name, t in self.state_dict().items()}, folder / RANKER_FILE)
        (folder / RANKER_CONFIG).write_text(
            json.dumps({"features": self.features, "hidden": self.hidden}, indent=2) + "\n"
        )

    @classmethod
    def load(cls, folder: Path) -> Ranker:
        """Read a ranker written by `save`."""
        shape = json.loads((folder / RANKER_CONFIG).read_text())
        ranker = cls(shape["features"], shape["hidden"])
        ranker.load_state_dict(load_file(folder / RANKER_FILE))
        return ranker.eval()
