"""What serving needs of a model, and the batch of model work that runs in the worker thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor, wait
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np

from features.dataset import BoolArray, FloatArray, IntArray
from ranking.live_catalogue import ItemChange, ItemPlan, LiveCatalogue
from ranking.requests import Recommendation, Request
from ranking.timing import listening, timed
from serving.telemetry import Stage, Timeline


class Recommends(Protocol):
    """The pure part: requests in, lists out."""

    def recommend(self, requests: Sequence[Request]) -> list[Recommendation]:
        """Answer every request, in order."""

    def search(self, requests: Sequence[Request]) -> list[Recommendation]:
        """Answer requests that have an intent with what reads like it, in order."""

    def similar(
        self, vectors: FloatArray, k: int, exclude: IntArray, allowed: BoolArray | None
    ) -> tuple[IntArray, FloatArray]:
        """Return the k nearest rows [queries, k], padded with -1, and their cosines [queries, k]."""


class Model(Protocol):
    """One state of a model with everything that answers need; `ranking.live_items.LiveVersion` is one.

    A request uses one from beginning to end. What a catalogue row means is the same in all states of a model.
    """

    @property
    def version(self) -> str:
        """Name of this version."""

    @property
    def manifest(self) -> dict[str, Any]:
        """Content of manifest.json."""

    @property
    def catalogue(self) -> LiveCatalogue:
        """The items of this state."""

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
        """The recommender, one for all states: it knows the newest vectors and deletions."""

    @property
    def text_vectors(self) -> FloatArray:
        """Unit vectors of the items' texts, [items, text_dim]."""

    def encode_items(self, texts: list[str]) -> FloatArray:
        """Return unit vectors of item texts, [texts, text_dim]."""

    def encode_queries(self, texts: list[str]) -> FloatArray:
        """Return unit vectors of free texts, [texts, text_dim]."""


class LiveModel(Protocol):
    """A model whose items change while it is served; `ranking.live_items.LiveItems` is one."""

    @property
    def current(self) -> Model:
        """The newest state."""

    def plan(self, changes: Sequence[ItemChange]) -> ItemPlan:
        """Work out what changes come to against the current state; any thread, one at a time."""

    def apply(self, plan: ItemPlan) -> Model:
        """Make planned changes; only in the model's thread, or before it is served."""

    def observe_popularity(self, counts: FloatArray) -> None:
        """Order popular items by event counts [items] from now on; only in the model's thread."""


@dataclass(frozen=True)
class RecommendJob:
    """One list to make by the model that its rows belong to."""

    model: Model
    request: Request
    intent: str = ""
    """Free text to encode into `request.intent`; empty for none."""
    search: bool = False
    """Whether to answer with what reads like the intent, instead of recommending with regard to it."""
    timeline: Timeline | None = None
    """Where to note what the job's batch went through."""


@dataclass(frozen=True)
class SimilarJob:
    """Nearest texts to an item of the catalogue or to a text."""

    model: Model
    seed: int | str
    """Catalogue row, or text to encode."""
    k: int
    exclude: IntArray
    allowed: BoolArray | None
    timeline: Timeline | None = None
    """As of RecommendJob."""


@dataclass(frozen=True)
class Neighbours:
    """Answer to a SimilarJob, most similar first."""

    rows: IntArray  # [found]
    cosines: FloatArray  # [found]


@dataclass(frozen=True)
class ApplyJob:
    """Changes of items."""

    model: LiveModel
    plan: ItemPlan


@dataclass(frozen=True)
class PopularityJob:
    """New event counts of all items."""

    model: LiveModel
    counts: FloatArray


Job = RecommendJob | SimilarJob | ApplyJob | PopularityJob
Answer = Recommendation | Neighbours | None
_Asked = tuple[int, RecommendJob | SimilarJob]
"""Position in a batch, and job."""
_WORTH_A_THREAD: Final = 2
"""Jobs of a batch from which on another thread is asked to help."""


def run_jobs(jobs: Sequence[Job], helpers: Executor | None = None, threads: int = 1) -> list[Answer]:
    """Answer a batch: texts of one kind are encoded together, lists of one model are made together.

    Jobs hold the model they were made for, so a batch that straddles a model change is answered correctly.
    Changes of items come first: the lists of the same batch know them already.

    Args:
        jobs: what to do.
        helpers: threads that make a part of the lists each, beside the calling one.
        threads: how many there are with the calling one. What is done for lists lets go of the interpreter's
            lock for most of the time, so that two threads take little more than half as long.
    """
    answers: dict[int, Answer] = {}
    by_model: dict[int, list[_Asked]] = {}
    for position, job in enumerate(jobs):
        if isinstance(job, (RecommendJob, SimilarJob)):
            by_model.setdefault(id(job.model.recommender), []).append((position, job))
        else:
            _maintain(job)
            answers[position] = None
    for asked in by_model.values():
        if helpers is None:
            answers.update(_answer(asked))
            continue
        parts = _shared_out(asked, threads)
        others = [helpers.submit(_answer, part) for part in parts[1:]]
        try:
            answers.update(_answer(parts[0]))
        finally:
            wait(others)  # before anything is changed that they read
        for other in others:
            answers.update(other.result())
    return [answers[position] for position in range(len(jobs))]


def _shared_out(asked: list[_Asked], threads: int) -> list[list[_Asked]]:
    """Return as many parts as are worth a thread each."""
    parts = max(1, min(threads, len(asked) // _WORTH_A_THREAD))
    bounds = [len(asked) * part // parts for part in range(parts + 1)]
    return [asked[start:stop] for start, stop in pairwise(bounds)]


def _answer(asked: Sequence[_Asked]) -> dict[int, Answer]:
    """Answer jobs of one model by their positions, and note what they went through."""
    began = time.perf_counter()
    passed: list[Stage] = []
    model = asked[0][1].model
    answers: dict[int, Answer] = {}
    with listening(lambda name, start, end: passed.append(Stage(name, start, end))):
        lists = [(p, job) for p, job in asked if isinstance(job, RecommendJob)]
        if lists:
            answers.update(zip([p for p, _ in lists], _lists(model, [job for _, job in lists]), strict=True))
        alike = [(p, job) for p, job in asked if isinstance(job, SimilarJob)]
        if alike:
            answers.update(
                zip([p for p, _ in alike], _neighbours(model, [job for _, job in alike]), strict=True)
            )
    for _, job in asked:
        if job.timeline is not None:
            job.timeline.began, job.timeline.stages = began, passed
    return answers


def _maintain(job: ApplyJob | PopularityJob) -> None:
    """Do work that keeps a model up to date."""
    if isinstance(job, ApplyJob):
        job.model.apply(job.plan)
    else:
        job.model.observe_popularity(job.counts)


def _lists(model: Model, jobs: list[RecommendJob]) -> list[Recommendation]:
    """Make the lists of jobs, in order."""
    requests = _with_intents(model, jobs)
    wanted = [request for job, request in zip(jobs, requests, strict=True) if job.search]
    other = [request for job, request in zip(jobs, requests, strict=True) if not job.search]
    searched = iter(model.recommender.search(wanted) if wanted else ())
    recommended = iter(model.recommender.recommend(other) if other else ())
    return [next(searched) if job.search else next(recommended) for job in jobs]


def _with_intents(model: Model, jobs: list[RecommendJob]) -> list[Request]:
    texts = list(dict.fromkeys(job.intent for job in jobs if job.intent))
    if not texts:
        return [job.request for job in jobs]
    with timed("text_encoding"):
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
