"""The ranking head: a small multi-task network over candidate features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from features.data.dataset import FloatArray
from ranking.scoring.compiled_ranker import CompiledRanker

RANKER_FILE = "ranker.safetensors"
RANKER_CONFIG = "ranker.json"
KNOTS = 32
GPU_MIN_CANDIDATES = 2048
"""Candidates (of about five lists) from which on a GPU scores them. Fewer are faster by the compiled loop, at
.0004 ms each, than by some twenty kernel launches, at about .01 ms each."""


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
        right = torch.searchsorted(self.knots, flat).clamp(1, KNOTS - 1)
        low, high = self.knots.gather(1, right - 1), self.knots.gather(1, right)
        share = ((flat - low) / (high - low)).clamp(0.0, 1.0)
        scaled = 2.0 * ((right - 1) + share) / (KNOTS - 1) - 1.0
        return scaled.T.reshape(features.shape)


class Ranker(nn.Module):
    """Scores candidates pointwise: a rank score, calibrated probabilities of a click and of a purchase.

    The third logit is of a purchase given a click, so that P(purchase) = P(click) P(purchase | click) never
    exceeds P(click) (ESMM, Ma et al., SIGIR 2018, arXiv:1804.07931).
    """

    calibration: Tensor

    def __init__(
        self, features: list[str], hidden: list[int], dropout: float = 0.0, conditional: bool = True
    ) -> None:
        """Build the network.

        Args:
            features: names of the features.
            hidden: units of each hidden layer.
            dropout: share of hidden units left out in training.
            conditional: False for weights of the earlier format, whose third logit is that of a purchase.

        """
        super().__init__()
        self.conditional = conditional
        self._compiled: CompiledRanker | None = None
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
        self.heads = nn.Linear(size, 3)  # rank, click, purchase given a click
        self.direct = nn.Linear(2 * len(features), 3, bias=False)
        self.register_buffer("calibration", torch.tensor([[1.0, 0.0], [1.0, 0.0]]))

    def fit_scale(self, sample: FloatArray) -> None:
        """Fit quantiles, mean and standard deviation to a sample of features [rows, features]."""
        self.scale.fit(sample)
        self.get_buffer("shift").copy_(torch.from_numpy(sample.mean(axis=0)))
        self.get_buffer("width").copy_(torch.from_numpy(np.maximum(sample.std(axis=0), 1e-3)))

    def forward(self, features: Tensor) -> Tensor:
        """Return raw logits [..., 3] (rank, click, purchase given a click) of features [..., features]."""
        standard = ((features - self.get_buffer("shift")) / self.get_buffer("width")).clamp(-4.0, 4.0)
        inputs = torch.cat([self.scale(features), standard], dim=-1)
        logits: Tensor = self.heads(self.trunk(inputs)) + self.direct(inputs)
        return logits

    def probabilities(self, logits: FloatArray) -> FloatArray:
        """Return calibrated P(click) and P(purchase), [..., 2], of raw logits [..., 3] (Platt scaling)."""
        steepness, shift = self.calibration.numpy(force=True).T
        calibrated = torch.from_numpy(logits[..., 1:] * steepness + shift)
        found: FloatArray = torch.sigmoid(calibrated).numpy()
        if self.conditional:
            found[..., 1] *= found[..., 0]
        else:
            found[..., 0] = found.max(axis=-1)
        return found

    def compiled(self) -> CompiledRanker:
        """Return the current weights compiled for inference."""
        weights = {name: tensor.numpy(force=True) for name, tensor in self.state_dict().items()}
        linear = [f"trunk.{layer}" for layer, m in enumerate(self.trunk) if isinstance(m, nn.Linear)]
        hidden = [(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in linear]
        return CompiledRanker.of(
            weights["scale.knots"], weights["shift"], weights["width"],
            hidden, (weights["heads.weight"], weights["heads.bias"]), weights["direct.weight"],
        )  # fmt: skip

    def train(self, mode: bool = True) -> Ranker:
        """Switch between training and inference; drops the compiled weights."""
        self._compiled = None
        return super().train(mode)

    def score(self, features: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return rank scores [queries, candidates] and probabilities [queries, candidates, 2]."""
        logits = self.logits(features)
        return logits[..., 0], self.probabilities(logits)

    def logits(self, features: FloatArray) -> FloatArray:
        """Return raw logits [..., 3] of features [..., features].

        By a compiled loop on the CPU, with the weights as of the first call after `eval`; on a GPU where the
        weights are on one and there are `GPU_MIN_CANDIDATES` candidates.
        """
        device = self.calibration.device
        if device.type != "cpu" and features.size >= GPU_MIN_CANDIDATES * features.shape[-1]:
            with torch.inference_mode():
                found: FloatArray = self(torch.from_numpy(features).to(device)).cpu().numpy()
            return found
        if self._compiled is None:
            self._compiled = self.compiled()
        return self._compiled.logits(features)

    def save(self, folder: Path) -> None:
        """Write weights and feature names."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: t.cpu().contiguous() for name, t in self.state_dict().items()}, folder / RANKER_FILE)
        (folder / RANKER_CONFIG).write_text(
            json.dumps(
                {"features": self.features, "hidden": self.hidden, "conditional": self.conditional}, indent=2
            )
            + "\n"
        )

    @classmethod
    def load(cls, folder: Path) -> Ranker:
        """Read a ranker written by `save`."""
        shape = json.loads((folder / RANKER_CONFIG).read_text())
        ranker = cls(shape["features"], shape["hidden"], conditional=shape.get("conditional", False))
        ranker.load_state_dict(load_file(folder / RANKER_FILE))
        return ranker.eval()
