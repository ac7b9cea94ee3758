"""Losses of both stages."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def in_batch_softmax(
    queries: Tensor,
    candidates: Tensor,
    positive: Tensor,
    *,
    temperature: float,
    log_q: Tensor | None = None,
    masked: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each pair against every candidate of the batch.

    In-batch sampling makes popular items negatives too often; subtracting log q, the log of the probability
    that a candidate is drawn (logQ correction), undoes it (Yi et al., RecSys 2019, "Sampling-bias-corrected
    neural modeling").

    Args:
        queries: unit vectors [pairs, dim].
        candidates: unit vectors of the distinct items of the batch [candidates, dim].
        positive: index of each pair's positive among the candidates [pairs].
        temperature: divides the cosines.
        log_q: log sampling probability per candidate [candidates], or None for no correction.
        masked: True where a candidate is no negative [pairs, candidates]; a positive always counts.
        weights: weight of each pair [pairs].

    Returns:
        Scalar loss, the weighted mean over pairs.

    """
    logits = queries @ candidates.T / temperature  # [pairs, candidates]
    if log_q is not None:
        logits = logits - log_q
    if masked is not None:
        rows = torch.arange(len(positive), device=positive.device)
        hidden = masked.clone()
        hidden[rows, positive] = False
        logits = logits.masked_fill(hidden, -torch.inf)
    losses = nn.functional.cross_entropy(logits, positive, reduction="none")
    if weights is None:
        return losses.mean()
    return (losses * weights).sum() / weights.sum().clamp(min=1e-9)


def sampled_softmax(
    states: Tensor,
    positives: Tensor,
    negatives: Tensor,
    collide: Tensor,
    weights: Tensor,
    temperature: float,
    log_q: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Cross-entropy of each position's next item against negatives shared by all positions.

    With `log_q` the estimate is that of the full softmax although negatives are not drawn uniformly (Bengio
    and Senecal 2008).

    Args:
        states: user states that predict [positions, dim].
        positives: vectors of the items that came next [positions, dim].
        negatives: vectors of the drawn items [negatives, dim].
        collide: True where a drawn item is the position's own target [positions, negatives].
        weights: weight of each position [positions].
        temperature: divides the scores.
        log_q: log probability of being drawn, of the positives [positions] and of the negatives [negatives].

    Returns:
        Scalar loss, the weighted mean over positions.

    """
    positive = (states * positives).sum(-1, keepdim=True) / temperature  # [positions, 1]
    negative = (states @ negatives.T) / temperature  # [positions, negatives]
    if log_q is not None:
        positive = positive - log_q[0].unsqueeze(1)
        negative = negative - log_q[1]
    logits = torch.cat([positive, negative.masked_fill(collide, -torch.inf)], dim=1)
    losses = -torch.log_softmax(logits, dim=1)[:, 0]
    return (losses * weights).sum() / weights.sum().clamp(min=1e-9)
