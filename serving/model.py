"""What serving needs of a model, and the batch of model work that runs in the worker thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from features.dataset import BoolArray, Catalogue, FloatArray, IntArray
from ranking.requests import Recommendation, Request


class Recommends(Protocol):
    """The pure part: requests in, lists out."""

    def recommend(self, requests: Sequence[Request]) -> list[Recommendation]:
        """Answer every request, in order."""

    def observe_popularity(self, counts: FloatArray) -> None:
        """Order popular items by event counts [items] from now on."""

    def similar(
        self, vectors: FloatArray, k: int, exclude: IntArray, allowed: BoolArray | None
    ) -> tuple[IntArray, FloatArray]:
        """Return the k nearest rows [queries, k], padded with -1, and their cosines [queries, k]."""


class Model(Protocol):
    """One immutable model version with everything that answers need; `ranking.bundle.Bundle` is one."""

    @property
    def version(self) -> str:
        """Name of this version."""

    @property
    def manifest(self) -> dict[str, Any]:
        """Content of manifest.json."""

    @property
    def catalogue(self) -> Catalogue:
        """The items."""

    @property
    def kinds(self) -> list[str]:
        """Event kinds, strongest first."""

    @property
    def exclude_seen(self) -> bool:
        """Whether items of the history are left out when the request does not say."""

    @property
    def data_end(self) -> int:
        """Unix seconds of the last event that it learnt from."""

    @property
    def recommender(self) -> Recommends:
        """The recommender."""

    @property
    def text_vectors(self) -> FloatArray:
        """Unit vectors of the items' texts, [items, text_dim]."""

    def encode_items(self, texts: list[str]) -> FloatArray:
        """Return unit vectors of item texts, [texts, text_dim]."""

    def encode_queries(self, texts: list[str]) -> FloatArray:
        """Return unit vectors of free texts, [texts, text_dim]."""


@dataclass(frozen=True)
class RecommendJob:
    """One list to make by the model that its rows belong to."""

    model: Model
    request: Request
    intent: str = ""
    """Free text to encode into `request.intent`; empty for none."""


@dataclass(frozen=True)
class SimilarJob:
    """Nearest texts to an item of the catalogue or to a text."""

    model: Model
    seed: int | str
    """Catalogue row, or text to encode."""
    k: int
    exclude: IntArray
    allowed: BoolArray | None


@dataclass(frozen=True)
class Neighbours:
    """Answer to a SimilarJob, most similar first."""

    rows: IntArray  # [found]
    cosines: FloatArray  # [found]


Job = RecommendJob | SimilarJob
Answer = Recommendation | Neighbours


def run_jobs(jobs: Sequence[Job]) -> list[Answer]:
    """Answer a batch: texts of one kind are encoded together, lists of one model are made together.

    Jobs hold the model they were made for, so a batch that straddles a model change is answered correctly.
    """
    answers: dict[int, Answer] = {}
    by_model: dict[int, list[int]] = {}
    for position, job in enumerate(jobs):
        by_model.setdefault(id(job.model), []).append(position)
    for positions in by_model.values():
        model = jobs[positions[0]].model
        lists = [(p, job) for p in positions if isinstance(job := jobs[p], RecommendJob)]
        if lists:
            requests = _with_intents(model, [job for _, job in lists])
            answers.update(zip([p for p, _ in lists], model.recommender.recommend(requests), strict=True))
        alike = [(p, job) for p in positions if isinstance(job := jobs[p], SimilarJob)]
        if alike:
            answers.update(
                zip([p for p, _ in alike], _neighbours(model, [job for _, job in alike]), strict=True)
            )
    return [answers[position] for position in range(len(jobs))]


def _with_intents(model: Model, jobs: list[RecommendJob]) -> list[Request]:
    texts = list(dict.fromkeys(job.intent for job in jobs if job.intent))
    if not texts:
        return [job.request for job in jobs]
    vectors = dict(zip(texts, model.encode_queries(texts), strict=True))
    return [replace(job.request, intent=vectors[job.intent]) if job.intent else job.request for job in jobs]


def _neighbours(model: Model, jobs: list[SimilarJob]) -> list[Neighbours]:
    texts = list(dict.fromkeys(job.seed for job in jobs if isinstance(job.seed, str)))
    encoded = dict(zip(texts, model.encode_items(texts), strict=True)) if texts else {}
    answers = []
    for job in jobs:
        vector = encoded[job.seed] if isinstance(job.seed, str) else model.text_vectors[job.seed]
        query = np.asarray(vector, dtype=np.float32)[None, :]  # [1, text_dim]
        rows, cosines = model.recommender.similar(query, job.k, job.exclude, job.allowed)
        found = rows[0] >= 0
        answers.append(Neighbours(rows[0][found], cosines[0][found]))
    return answers
