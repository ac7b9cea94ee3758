"""The ranking head's Lightning module: listwise order, pointwise probabilities."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.utils.data import DataLoader

from conf.schema import RankerConfig
from encoders.device import fits
from encoders.training.fitting import running_average
from features.data.dataset import FloatArray
from ranking.scoring.ranker import Ranker
from ranking.training.example_tensors import ExampleTensors, QueryBatches
from ranking.training.examples import Examples, ndcg_of_scores

VALIDATION_QUERIES = 512
"""Queries whose candidates are scored at once where that is not the CPU."""


def listwise_loss(scores: Tensor, chosen: Tensor, real: Tensor) -> Tensor:
    """Softmax cross-entropy of every chosen item against the items of its list that were not chosen.

    One chosen item does not compete with another: ListNet (Cao et al., ICML 2007), whose softmax runs over
    the whole list, wants them equally far up and pushes down whichever it is sure of. The mean over the lists
    weighs each by the square root of the number of chosen items, between a list a vote and a choice a vote.

    Args:
        scores: [queries, candidates].
        chosen: bool, at least one True per query that counts.
        real: bool, False at padding.

    """
    hits = chosen & real
    # Not minus infinity: a list of nothing but chosen items teaches nothing, and its gradient is a number.
    others = torch.logsumexp(scores.masked_fill(~real | chosen, -1e9), dim=1, keepdim=True)
    each = nn.functional.softplus(others - scores).masked_fill(~hits, 0.0)
    count = hits.sum(1).clamp(min=1)
    per_query, weight = each.sum(1) / count, hits.any(1) * count.sqrt()
    return (per_query * weight).sum() / weight.sum().clamp(min=1.0)


def pointwise_loss(click: Tensor, given: Tensor, chosen: Tensor, bought: Tensor) -> Tensor:
    """Return the mean log loss of the probabilities of a click and of a purchase, of the inputs' shape.

    A purchase has the probability of a click times that of a purchase given one, whose logit thereby learns
    from candidates that were not chosen, too.

    Args:
        click: logits of a click, or of whatever choice there was.
        given: logits of a purchase given a click.
        chosen: bool, what was clicked or bought.
        bought: bool, what was bought.

    """
    clicked = nn.functional.binary_cross_entropy_with_logits(click, chosen.float(), reduction="none")
    both = nn.functional.logsigmoid(click) + nn.functional.logsigmoid(given)
    # log(1 - P) from log P, which is below 0 but may round to it.
    neither = torch.log(-torch.expm1(both.clamp(max=-1e-6)))
    return (clicked - torch.where(bought, both, neither)) / 2


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the values where the mask is True, a scalar; both have one shape."""
    if values.device.type == "cpu":
        return values[mask].mean()
    # Indexing by a mask, the host would wait for the number of values.
    return values.masked_fill(~mask, 0.0).sum() / mask.sum()


class RankerModule(pl.LightningModule):
    """Trains a Ranker on examples held in memory, the device's where they fit; validates by ndcg@10."""

    def __init__(
        self, ranker: Ranker, config: RankerConfig, train: Examples, valid: Examples | None, seed: int
    ) -> None:
        """Take the network and both sets of examples; None validates nothing."""
        super().__init__()
        self.ranker = ranker
        self.settings = config
        self.examples = ExampleTensors.of(train)
        self.valid_examples = valid
        self.valid_features = None if valid is None else torch.from_numpy(valid.features)
        self.seed = seed
        self.average = running_average(ranker, config.average * -(-len(train) // config.batch_size))

    def on_fit_start(self) -> None:
        """Bring the examples to the device."""
        self._kept = self.examples, self.valid_features
        self.examples = self.examples.settled(self.device)
        if self.valid_features is not None and fits(self.valid_features.nbytes, self.device):
            self.valid_features = self.valid_features.to(self.device)

    def on_fit_end(self) -> None:
        """Leave the device."""
        self.examples, self.valid_features = self._kept

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(
            self.ranker.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )

    def train_dataloader(self) -> DataLoader[ExampleTensors]:
        """Return this epoch's batches."""
        seed = self.seed * 100_003 + self.current_epoch
        queries = QueryBatches(self.examples, self.settings.batch_size, seed, self.device)
        return DataLoader(queries, batch_size=None)

    def on_train_batch_start(self, batch: ExampleTensors, batch_idx: int) -> None:
        """Tie dropout to the epoch, after the data loader has drawn its own seed."""
        if batch_idx == 0:
            torch.manual_seed(self.seed * 100_003 + self.current_epoch)

    def on_train_batch_end(self, outputs: object, batch: ExampleTensors, batch_idx: int) -> None:
        """Let the average follow."""
        self.average.update_parameters(self.ranker)

    @property
    def trained(self) -> Ranker:
        """The averaged network: what validation measures and what is kept."""
        return cast(Ranker, self.average.module)

    def training_step(self, batch: ExampleTensors, _index: int) -> Tensor:
        """Listwise loss on the order, log loss on both probabilities."""
        logits = self.ranker(batch.features)
        order = listwise_loss(logits[..., 0], batch.chosen, batch.real)
        # Negatives are a sample: a prior shift keeps the probabilities those of the full candidate list.
        click, given = logits[..., 1] - batch.shift[:, None], logits[..., 2]
        pointwise = masked_mean(pointwise_loss(click, given, batch.chosen, batch.bought), batch.real)
        loss: Tensor = order + self.settings.pointwise_weight * pointwise
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return one pass; the work is done at the end of it."""
        if self.valid_examples is None:
            return []
        return DataLoader(torch.zeros(1), batch_size=None)  # type: ignore[arg-type]

    def validation_step(self, _batch: Tensor, _index: int) -> None:
        """Log ndcg@10 of the validation queries' candidates."""
        assert self.valid_examples is not None
        scores = self._validation_scores()
        self.log("valid_ndcg", float(ndcg_of_scores(self.valid_examples, scores).mean()), prog_bar=True)

    def _validation_scores(self) -> FloatArray:
        """Return the rank scores of the validation queries' candidates, [queries, candidates]."""
        assert self.valid_features is not None
        if self.device.type == "cpu":  # by the compiled kernel, which is faster there
            return raw_logits(self.trained, self.valid_features.numpy())[..., 0]
        scores = []
        for start in range(0, len(self.valid_features), VALIDATION_QUERIES):
            part = self.valid_features[start : start + VALIDATION_QUERIES].to(self.device)
            scores.append(self.trained(part)[..., 0])
        return torch.cat(scores).cpu().numpy()


def raw_logits(ranker: Ranker, features: FloatArray) -> FloatArray:
    """Return raw logits [queries, candidates, 3] of the present weights, without dropout."""
    return ranker.compiled().logits(features)


def calibrate(ranker: Ranker, examples: Examples) -> None:
    """Fit Platt scaling of both logits on held-out, complete candidate lists (Platt 1999).

    The click's is fitted on every candidate; that of a purchase given a click on what was chosen.
    """
    logits = torch.from_numpy(raw_logits(ranker, examples.features)[examples.real][:, 1:])
    chosen = torch.from_numpy(examples.chosen[examples.real])
    bought = torch.from_numpy(examples.bought[examples.real])
    for task, (inputs, truth) in enumerate(
        ((logits[:, 0], chosen.float()), (logits[chosen, 1], bought[chosen].float()))
    ):
        fitted = _platt(inputs, truth)
        if fitted is not None:
            ranker.calibration[task] = fitted


def _platt(logits: Tensor, truth: Tensor) -> Tensor | None:
    """Return steepness and shift [2] of the logits; None where they cannot be fitted."""
    if not 0 < float(truth.sum()) < len(truth):
        return None
    values = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([values], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scaled = logits * values[0] + values[1]
        loss = nn.functional.binary_cross_entropy_with_logits(scaled, truth)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    fitted = values.detach()
    return fitted if bool(torch.isfinite(fitted).all()) and float(fitted[0]) > 0 else None


def probability_quality(ranker: Ranker, examples: Examples, bins: int = 10) -> dict[str, dict[str, float]]:
    """Return AUC, log loss and expected calibration error of both probabilities on examples.

    The calibration error is the mean gap between predicted and observed share over ten equally filled bins.
    """
    probabilities = ranker.probabilities(raw_logits(ranker, examples.features))[examples.real]
    labels = np.stack([examples.chosen, examples.bought], axis=-1)[examples.real]
    quality = {}
    for task, name in enumerate(("click", "purchase")):
        p = np.clip(probabilities[:, task].astype(np.float64), 1e-9, 1 - 1e-9)
        y = labels[:, task]
        positives = int(y.sum())
        if positives == 0 or positives == len(y):
            continue
        ranks = rankdata(p)
        auc = (ranks[y].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives))
        groups = np.array_split(np.argsort(p, kind="stable"), bins)
        error = sum(len(g) / len(y) * abs(p[g].mean() - y[g].mean()) for g in groups if len(g))
        quality[name] = {
            "auc": float(auc),
            "log_loss": float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()),
            "calibration_error": float(error),
            "base_rate": float(y.mean()),
        }
    return quality
