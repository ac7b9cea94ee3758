"""A batch of model work, as it runs in the thread that makes lists."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor, wait
from dataclasses import replace
from itertools import pairwise
from typing import Final, cast

import numpy as np

from ranking.live.recorded_events import CountResult
from ranking.stage_timing import listening, timed
from ranking.types import Recommendation, Request
from serving.core.call_context import Stage
from serving.model.interfaces import (
    Answer,
    ApplyJob,
    CountJob,
    Job,
    ListJob,
    ModelHere,
    Neighbours,
    RecommendJob,
    RemoteRecommender,
    SimilarJob,
)

_Asked = tuple[int, ListJob]
"""Position in a batch, and job."""
_WORTH_A_THREAD: Final = 2
"""Jobs of a batch from which on another thread is asked to help."""


def run_jobs(jobs: Sequence[Job], helpers: Executor | None = None, threads: int = 1) -> list[Answer]:
    """Answer a batch: texts of one kind are encoded together, lists of one model are made together.

    Jobs hold the model they were made for, so a batch that straddles a model change is answered correctly.
    Changes of items and counts of events come first: the lists of the same batch know them already.

    Args:
        jobs: what to do.
        helpers: threads that make a part of the lists each, beside the calling one.
        threads: how many there are with the calling one. What is done for lists lets go of the interpreter's
            lock for most of the time, so that two threads take little more than half as long.
    """
    answers: dict[int, Answer] = {}
    by_model: dict[int, list[_Asked]] = {}
    for position, job in enumerate(jobs):
        if isinstance(job, ListJob):
            by_model.setdefault(id(job.model.recommender), []).append((position, job))
        else:
            answers[position] = _maintain(job)
    for asked in by_model.values():
        maker = asked[0][1].model.recommender
        if isinstance(maker, RemoteRecommender):
            made = maker.answer([job for _, job in asked])
            answers.update(zip([position for position, _ in asked], made, strict=True))
            continue
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
    model = cast(ModelHere, asked[0][1].model)
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


def _maintain(job: ApplyJob | CountJob) -> CountResult | None:
    """Do work that keeps a model up to date."""
    if isinstance(job, CountJob):
        return job.model.count_events(job.events)
    job.model.apply(job.plan)
    return None


def _lists(model: ModelHere, jobs: list[RecommendJob]) -> list[Recommendation]:
    """Make the lists of jobs, in order."""
    requests = _with_intents(model, jobs)
    wanted = [request for job, request in zip(jobs, requests, strict=True) if job.search]
    other = [request for job, request in zip(jobs, requests, strict=True) if not job.search]
    searched = iter(model.recommender.search(wanted) if wanted else ())
    recommended = iter(model.recommender.recommend(other) if other else ())
    return [next(searched) if job.search else next(recommended) for job in jobs]


def _with_intents(model: ModelHere, jobs: list[RecommendJob]) -> list[Request]:
    texts = list(dict.fromkeys(job.intent for job in jobs if job.intent))
    if not texts:
        return [job.request for job in jobs]
    with timed("text_encoding"):
        vectors = dict(zip(texts, model.encode_queries(texts), strict=True))
    return [
        replace(job.request, intent=vectors[job.intent], query_text=job.intent) if job.intent else job.request
        for job in jobs
    ]


def _neighbours(model: ModelHere, jobs: list[SimilarJob]) -> list[Neighbours]:
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
