"""What the stages of a list pass on: arrays of a batch of requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from conf.schema import CandidateConfig
from features.candidates.features import Candidates, UserVectors
from features.data.dataset import FloatArray, IntArray
from ranking.filtering import Filtered
from ranking.rerank.slate import Slate


class Retrieved(NamedTuple):
    """Candidates of a batch, and the proposals that they come from."""

    candidates: Candidates
    proposals: dict[str, IntArray]
    """Rows of each source, [queries, at most its quota]."""
    best: FloatArray
    """Best scores in the catalogue by tower and by factors, [queries, 2]."""


@dataclass(frozen=True)
class Ranked:
    """Candidates of a batch after scoring; [queries, candidates] unless noted."""

    proposals: dict[str, IntArray]  # per source [queries, quota]
    candidates: Candidates
    scores: FloatArray  # -inf at padding
    probabilities: FloatArray  # [queries, candidates, 2] P(click), P(purchase); NaN without a ranking head
    head: FloatArray  # scores of the ranking head alone, before the novelty offset and the text query


@dataclass(frozen=True)
class Stages:
    """What every stage made of a block of requests, for explanations."""

    config: CandidateConfig
    """The quotas."""
    final: bool
    """Whether no further candidates will be retrieved."""
    filtered: Filtered
    users: UserVectors
    retrieved: Retrieved
    novelty: list[float]
    """Budget of each request."""
    ranked: Ranked
    slates: list[Slate]


Watch = Callable[[Stages], None]
"""Receives the stages of each block, and of each further retrieval."""
