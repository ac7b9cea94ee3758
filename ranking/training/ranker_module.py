"""The ranking head's Lightning module: a listwise and a pointwise loss."""

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
from encoders.training.processes import gather_shards, joint_mean, rank_and_size, shard
from features.data.dataset import FloatArray
from ranking.scoring.ranker import Ranker
from ranking.training.example_tensors import ExampleTensors, QueryBatches
from ranking.training.examples import Examples, ndcg_of_scores

VALIDATION_QUERIES = 512
"""Validation queries scored at once on a GPU."""


def listwise_loss(scores: Tensor, chosen: Tensor, real: Tensor) -> Tensor:
    """Return the softmax cross-entropy of every positive against the negatives of its list, a scalar.

    Positives do not compete with each other, unlike in ListNet (Cao et al., ICML 2007), whose softmax over
    the whole list equalises them and pushes down the most certain. Lists are weighted by the square root of
    the number of positives, between one vote per list and one per positive.

    Args:
        scores: [queries, candidates].
        chosen: bool, the positives; queries without any are ignored.
        real: bool, False at padding.

    """
    hits = chosen & real
    # Not minus infinity, so that the gradient of a list without negatives is 0 and not NaN.
    others = torch.logsumexp(scores.masked_fill(~real | chosen, -1e9), dim=1, keepdim=True)
    each = nn.functional.softplus(others - scores).masked_fill(~hits, 0.0)
    weight = list_weights(chosen, real)
    per_query = each.sum(1) / hits.sum(1).clamp(min=1)
    return (per_query * weight).sum() / weight.sum().clamp(min=1.0)


def list_weights(chosen: Tensor, real: Tensor) -> Tensor:
    """Return the weight of each list in the listwise loss, [queries]; 0 without a positive."""
    return (chosen & real).sum(1).sqrt()


def pointwise_loss(click: Tensor, given: Tensor, chosen: Tensor, bought: Tensor) -> Tensor:
    """Return the mean log loss of the probabilities of a click and of a purchase, of the inputs' shape.

    The probability of a purchase is that of a click times that of a purchase given a click, whose logit so is
    trained on candidates without a click, too (ESMM).

    Args:
        click: logits of a click or any stronger event.
        given: logits of a purchase given a click.
        chosen: bool, clicked or bought.
        bought: bool, bought.

    """
    clicked = nn.functional.binary_cross_entropy_with_logits(click, chosen.float(), reduction="none")
    both = nn.functional.logsigmoid(click) + nn.functional.logsigmoid(given)
    # log(1 - P) from log P, which is negative but may round to 0.
    neither = torch.log(-torch.expm1(both.clamp(max=-1e-6)))
    return (clicked - torch.where(bought, both, neither)) / 2


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the values where the mask, of the same shape, is True, a scalar; 0 where none is."""
    if values.device.type == "cpu":
        return values[mask].sum() / mask.sum().clamp(min=1)
    # Indexing by a mask would synchronise with the device.
    return values.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)


class RankerModule(pl.LightningModule):
    """Trains a Ranker on examples in memory, on the device if they fit; validates by ndcg@10.

    Several processes divide the queries of a batch, and those of validation.
    """

    def __init__(
        self, ranker: Ranker, config: RankerConfig, train: Examples, valid: Examples | None, seed: int
    ) -> None:
        """Take the network, training examples and validation examples, None for no validation."""
        super().__init__()
        self.ranker = ranker
        self.settings = config
        self.examples = ExampleTensors.of(train)
        self.valid_examples = valid
        self.valid_features = None if valid is None else torch.from_numpy(valid.features)
        self.seed = seed
        self.average = running_average(ranker, config.average * -(-len(train) // config.batch_size))

    def on_fit_start(self) -> None:
        """Copy the examples to the device."""
        self._kept = self.examples, self.valid_features
        self.examples = self.examples.on_device_if_fits(self.device)
        if self.valid_features is not None and fits(self.valid_features.nbytes, self.device):
            self.valid_features = self.valid_features.to(self.device)

    def on_fit_end(self) -> None:
        """Free the device's memory."""
        self.examples, self.valid_features = self._kept

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW."""
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
        """Seed dropout by the epoch, after the data loader has drawn its seed."""
        if batch_idx == 0:
            rank = rank_and_size()[0]  # dropout differs from process to process
            torch.manual_seed(self.seed * 100_003 + self.current_epoch + 1_000_000_007 * rank)

    def on_train_batch_end(self, outputs: object, batch: ExampleTensors, batch_idx: int) -> None:
        """Update the weight average."""
        self.average.update_parameters(self.ranker)

    @property
    def trained(self) -> Ranker:
        """The averaged network, which is validated and saved."""
        return cast(Ranker, self.average.module)

    def training_step(self, batch: ExampleTensors, _index: int) -> Tensor:
        """Return the listwise loss plus the log loss of both probabilities, this process's part of them."""
        logits = self.ranker(batch.features)
        order = joint_mean(
            listwise_loss(logits[..., 0], batch.chosen, batch.real), list_weights(batch.chosen, batch.real)
        )
        # A prior shift corrects the probabilities for the sampling of negatives.
        click, given = logits[..., 1] - batch.shift[:, None], logits[..., 2]
        pointwise = masked_mean(pointwise_loss(click, given, batch.chosen, batch.bought), batch.real)
        loss: Tensor = order + self.settings.pointwise_weight * joint_mean(pointwise, batch.real)
        self.log("loss", loss.detach(), prog_bar=True, sync_dist=True)
        return loss

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return a single dummy batch; `validation_step` scores all queries."""
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
        own = torch.from_numpy(shard(np.arange(len(self.valid_features)))).to(self.valid_features.device)
        scores = []
        for start in range(0, len(own), VALIDATION_QUERIES):
            part = self.valid_features[own[start : start + VALIDATION_QUERIES]]
            if self.device.type == "cpu":  # by the compiled kernel, which is faster there
                scores.append(torch.from_numpy(raw_logits(self.trained, part.numpy())[..., 0]))
            else:
                scores.append(self.trained(part.to(self.device))[..., 0])
        return gather_shards(torch.cat(scores), len(self.valid_features)).cpu().numpy()


def raw_logits(ranker: Ranker, features: FloatArray) -> FloatArray:
    """Return raw logits [queries, candidates, 3] of the current weights, without dropout."""
    return ranker.compiled().logits(features)


def calibrate(ranker: Ranker, examples: Examples) -> None:
    """Fit Platt scaling of both logits on held-out, complete candidate lists (Platt 1999).

    The click logit is fitted on all candidates, that of a purchase given a click on the clicked ones.
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
    """Return slope and intercept [2] of Platt scaling; None where they cannot be fitted."""
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
