"""Execution of a batch of model jobs in the thread that makes lists."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor, wait
from dataclasses import replace
from itertools import pairwise
from typing import Final, cast

import numpy as np

from ranking.live.recorded_events import CountResult
from ranking.retrieval.unavailable import SearchUnavailableError, within
from ranking.stage_timing import listening, timed
from ranking.types import Recommendation, Request
from serving.core.call_context import Stage
from serving.model.interfaces import (
    Answer,
    ApplyJob,
    CountJob,
    Job,
    ListJob,
    LocalModel,
    Neighbours,
    RecommendJob,
    RemoteRecommender,
    SimilarJob,
)

_PositionedJob = tuple[int, ListJob]
"""Position in a batch, and job."""
_MIN_JOBS_PER_THREAD: Final = 2
"""Fewest jobs for which another thread is used."""


def execute_batch(jobs: Sequence[Job], helpers: Executor | None = None, threads: int = 1) -> list[Answer]:
    """Return the answers of a batch, in order; texts are encoded together, and lists of one model, too.

    Jobs refer to their model, so a batch may span a replacement of the model. Item changes and event counts
    run first, so that the lists of the same batch reflect them.

    Args:
        jobs: the batch.
        helpers: further threads, each of which makes a part of the lists.
        threads: number of threads including the calling one. Making lists releases the GIL most of the time,
            so that two threads take little more than half as long.
    """
    answers: dict[int, Answer] = {}
    by_model: dict[int, list[_PositionedJob]] = {}
    for position, job in enumerate(jobs):
        if isinstance(job, ListJob):
            by_model.setdefault(id(job.model.recommender), []).append((position, job))
        else:
            answers[position] = _update_model(job)
    for group in by_model.values():
        recommender = group[0][1].model.recommender
        if isinstance(recommender, RemoteRecommender):
            made = recommender.answer([job for _, job in group])
            answers.update(zip([position for position, _ in group], made, strict=True))
            continue
        if helpers is None:
            answers.update(_answer(group))
            continue
        parts = _partition(group, threads)
        others = [helpers.submit(_answer, part) for part in parts[1:]]
        try:
            answers.update(_answer(parts[0]))
        finally:
            wait(others)  # before anything that they read may change
        for other in others:
            answers.update(other.result())
    return [answers[position] for position in range(len(jobs))]


def _partition(jobs: list[_PositionedJob], threads: int) -> list[list[_PositionedJob]]:
    """Return the jobs in parts of about equal size, one per thread."""
    parts = max(1, min(threads, len(jobs) // _MIN_JOBS_PER_THREAD))
    bounds = [len(jobs) * part // parts for part in range(parts + 1)]
    return [jobs[start:stop] for start, stop in pairwise(bounds)]


def _answer(jobs: Sequence[_PositionedJob]) -> dict[int, Answer]:
    """Return the answers to jobs of one model by position, and set the jobs' timelines."""
    began = time.perf_counter()
    stages: list[Stage] = []
    model = cast(LocalModel, jobs[0][1].model)
    answers: dict[int, Answer] = {}
    earliest = min((job.deadline for _, job in jobs if job.deadline is not None), default=None)
    with (
        listening(lambda name, start, end: stages.append(Stage(name, start, end))),
        within(earliest),
    ):
        lists = [(p, job) for p, job in jobs if isinstance(job, RecommendJob)]
        if lists:
            answers.update(zip([p for p, _ in lists], _lists(model, [job for _, job in lists]), strict=True))
        similar = [(p, job) for p, job in jobs if isinstance(job, SimilarJob)]
        if similar:
            answers.update(
                zip([p for p, _ in similar], _neighbours(model, [job for _, job in similar]), strict=True)
            )
    for _, job in jobs:
        if job.timeline is not None:
            job.timeline.began, job.timeline.stages = began, stages
    return answers


def _update_model(job: ApplyJob | CountJob) -> CountResult | None:
    """Apply item changes, or count events."""
    if isinstance(job, CountJob):
        return job.model.count_events(job.events)
    job.model.apply(job.plan)
    return None


def _lists(model: LocalModel, jobs: list[RecommendJob]) -> list[Recommendation]:
    """Return the lists of jobs, in order."""
    requests = _with_intents(model, jobs)
    searches = [request for job, request in zip(jobs, requests, strict=True) if job.search]
    others = [request for job, request in zip(jobs, requests, strict=True) if not job.search]
    searched = iter(model.recommender.search(searches) if searches else ())
    recommended = iter(model.recommender.recommend(others) if others else ())
    return [next(searched) if job.search else next(recommended) for job in jobs]


def _with_intents(model: LocalModel, jobs: list[RecommendJob]) -> list[Request]:
    texts = list(dict.fromkeys(job.intent for job in jobs if job.intent))
    if not texts:
        return [job.request for job in jobs]
    with timed("text_encoding"):
        vectors = dict(zip(texts, model.encode_queries(texts), strict=True))
    return [
        replace(job.request, intent=vectors[job.intent], query_text=job.intent) if job.intent else job.request
        for job in jobs
    ]


def _neighbours(model: LocalModel, jobs: list[SimilarJob]) -> list[Neighbours]:
    texts = list(dict.fromkeys(job.seed for job in jobs if isinstance(job.seed, str)))
    encoded = dict(zip(texts, model.encode_items(texts), strict=True)) if texts else {}
    answers = []
    for job in jobs:
        vector = encoded[job.seed] if isinstance(job.seed, str) else model.text_vectors[job.seed]
        query = np.asarray(vector, dtype=np.float32)[None, :]  # [1, text_dim]
        try:
            rows, cosines = model.recommender.similar(query, job.k, job.exclude, job.allowed)
        except SearchUnavailableError:
            answers.append(_stored_neighbours(model, job))
            continue
        found = rows[0] >= 0
        answers.append(Neighbours(rows[0][found], cosines[0][found]))
    return answers


def _stored_neighbours(model: LocalModel, job: SimilarJob) -> Neighbours:
    """Return an item's stored text neighbours within the job's limits; none for a text."""
    if isinstance(job.seed, str):
        return Neighbours(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32), searched=False)
    near = model.recommender.stored_neighbours(job.seed)
    kept = ~np.isin(near.ids, job.exclude)
    if job.allowed is not None:
        kept &= (near.ids < len(job.allowed)) & job.allowed[np.minimum(near.ids, len(job.allowed) - 1)]
    return Neighbours(near.ids[kept][: job.k], near.weights[kept][: job.k], searched=False)
