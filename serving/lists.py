"""Recommend, SearchItems and SimilarItems: a request is checked, asked of state and model, and answered."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import grpc
import numpy as np

from conf.serving import ServeConfig
from features.dataset import BoolArray, IntArray
from features.privacy import Pseudonyms
from ranking.filters import FilterError
from ranking.requests import History, Recommendation, Request
from serving import paging, validation
from serving.batching import Batcher
from serving.envelope import CALL
from serving.host import ModelHost, Served
from serving.model import Neighbours, RecommendJob, SimilarJob
from serving.problems import Problem, invalid
from serving.proto.shelfwise.v1 import recommendations_pb2 as pb
from serving.recall import Recall, Recalled
from serving.telemetry import note, passed, stage
from serving.translation import SessionEvents, degradation, merge_history, session_events
from serving.user_state import MICROS, log_name

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _FilterJob:
    served: Served
    expression: str


@dataclass(frozen=True)
class _Shopper:
    """Whom a list is made for, as far as is known."""

    user: str
    """Under the name by which the state knows them; empty for nobody."""
    session: SessionEvents
    history: History
    used: int
    """Events of the history that were stored ones."""
    available: bool
    """Whether the state could be read."""


@dataclass(frozen=True)
class _Page:
    """One page of a list."""

    items: Recommendation
    next_token: str
    degradation: pb.Degradation


class Lists:
    """Makes the lists of the service; create it inside a running event loop."""

    def __init__(
        self, host: ModelHost, recall: Recall, config: ServeConfig, pseudonyms: Pseudonyms | None
    ) -> None:
        """Wire the parts; see `serving.service.RecommendationService`."""
        self._host = host
        self._recall = recall
        self._config = config
        self._pseudonyms = pseudonyms
        self._filters = Batcher[_FilterJob, BoolArray | FilterError](
            _make_masks,
            max_batch=1,
            max_queue=config.max_queue,
            name="filters",
            watch=host.queue_metrics("filters", lambda: len(self._filters)),
        )

    async def close(self) -> None:
        """Finish running work and stop the thread."""
        await self._filters.close()

    def known_as(self, user_id: str) -> str:
        """Return the name under which the state knows a user."""
        return self._pseudonyms.of(user_id) if self._pseudonyms and user_id else user_id

    async def recommend(self, request: pb.RecommendRequest) -> pb.RecommendResponse:
        """Answer with a personalised list."""
        asked = request.HasField("request_time")
        now_us = validation.micros("request_time", request.request_time) if asked else time.time_ns() // 1000
        user = self.known_as(validation.optional_id("user_id", request.user_id))
        recalled = await self._recall.ask(user, now_us if asked else None)
        served = self._host.served
        model = served.model
        size = validation.page_size(request.page_size, self._config.max_page_size)
        shown = paging.decode(request.page_token, identity := paging.fingerprint(request))
        fields = validation.read_mask(request.read_mask, pb.RecommendedItem)
        surface = validation.surface(request.surface)
        intent = validation.limited_text("session.intent", request.session.intent, validation.MAX_QUERY_CHARS)
        excluded = validation.excluded("exclude_item_ids", request.exclude_item_ids)
        session = session_events(request.session, model, now_us)
        exclude_seen = request.exclude_seen if request.HasField("exclude_seen") else model.exclude_seen
        diversity = (
            validation.diversity(request.diversity) if request.HasField("diversity") else served.diversity
        )
        allowed = await self._allowed(served, request.filter)
        shopper = self._shopper(served, user, session, now_us, recalled)
        wanted = Request(
            history=shopper.history,
            now=now_us // MICROS,
            exclude=_exclude(served, [*excluded, *recalled.deleted_items], shown),
            allowed=allowed,
            exclude_seen=exclude_seen,
            diversity=diversity,
            explain=request.explain,
        )
        page = await self._page(served, RecommendJob(model, wanted, intent), size, shopper, identity, shown)
        self._note(model.version, page, shopper)
        note(surface=surface or "-")
        return pb.RecommendResponse(
            items=served.cards.recommended(page.items, intent, request.explain, fields),
            next_page_token=page.next_token,
            model_version=model.version,
            request_id=CALL.get().request_id,
            degradation=page.degradation,
            unknown_item_ids=session.unknown,
        )

    async def search(self, request: pb.SearchItemsRequest) -> pb.SearchItemsResponse:
        """Answer with the items that read like some words."""
        now_us = time.time_ns() // 1000
        user = self.known_as(validation.optional_id("user_id", request.user_id))
        recalled = await self._recall.ask(user)
        served = self._host.served
        model = served.model
        query = validation.limited_text("query", request.query, validation.MAX_QUERY_CHARS)
        if not query:
            raise invalid("query", "is empty")
        size = validation.page_size(request.page_size, self._config.max_page_size)
        shown = paging.decode(request.page_token, identity := paging.fingerprint(request))
        fields = validation.read_mask(request.read_mask, pb.RecommendedItem)
        excluded = validation.excluded("exclude_item_ids", request.exclude_item_ids)
        session = session_events(request.session, model, now_us)
        allowed = await self._allowed(served, request.filter)
        shopper = self._shopper(served, user, session, now_us, recalled)
        wanted = Request(
            history=shopper.history,
            now=now_us // MICROS,
            exclude=_exclude(served, [*excluded, *recalled.deleted_items], shown),
            allowed=allowed,
            explain=request.explain,
        )
        job = RecommendJob(model, wanted, query, search=True)
        page = await self._page(served, job, size, shopper, identity, shown)
        self._note(model.version, page, shopper)
        return pb.SearchItemsResponse(
            items=served.cards.recommended(page.items, query, request.explain, fields),
            next_page_token=page.next_token,
            model_version=model.version,
            request_id=CALL.get().request_id,
            degradation=page.degradation,
            unknown_item_ids=session.unknown,
        )

    async def similar(self, request: pb.SimilarItemsRequest) -> pb.SimilarItemsResponse:
        """Answer with the items whose texts are most alike."""
        recalled = await self._recall.ask("")
        call, served = CALL.get(), self._host.served
        model = served.model
        size = validation.page_size(request.page_size, self._config.max_page_size)
        shown = paging.decode(request.page_token, identity := paging.fingerprint(request))
        fields = validation.read_mask(request.read_mask, pb.SimilarItem)
        excluded = validation.excluded("exclude_item_ids", request.exclude_item_ids)
        seed = _seed(request, served, recalled.deleted_items)
        exclude = _exclude(served, [*excluded, *recalled.deleted_items], shown)
        if isinstance(seed, int):
            exclude = np.union1d(exclude, np.array([seed], dtype=np.int32)).astype(np.int32)
        allowed = await self._allowed(served, request.filter)
        job = SimilarJob(model, seed, min(size + 1, len(model.catalogue)), exclude, allowed)
        answer = await self._host.ask(job, call.deadline)
        note(model_version=model.version)
        assert isinstance(answer, Neighbours)
        kept = self._still_there(answer.rows.tolist())
        found, cosines = answer.rows[kept], answer.cosines[kept]
        rows = found[:size].tolist() if len(found) > size else []
        return pb.SimilarItemsResponse(
            items=served.cards.similar(found[:size], cosines[:size], fields),
            next_page_token=_next_token(served, identity, shown, rows),
            model_version=model.version,
            request_id=call.request_id,
        )

    def _shopper(
        self, served: Served, user: str, session: SessionEvents, now_us: int, recalled: Recalled
    ) -> _Shopper:
        """Bring together what is stored about a user and what the session says."""
        history, used = merge_history(
            served.model, recalled.events or (), session, now_us // MICROS, self._config.max_history
        )
        available = recalled.events is not None or not user
        return _Shopper(user, session, history, used, available)

    async def _page(
        self,
        served: Served,
        job: RecommendJob,
        size: int,
        shopper: _Shopper,
        identity: bytes,
        shown: paging.HashArray,
    ) -> _Page:
        """Have a list made and cut it to a page."""
        # One more than the page holds, to know whether there is a next one.
        request = replace(job.request, k=min(size + 1, len(served.model.catalogue)))
        answer = await self._host.ask(replace(job, request=request), CALL.get().deadline)
        assert isinstance(answer, Recommendation)
        kept = self._still_there(item.row for item in answer.items)
        items = tuple(item for item, there in zip(answer.items, kept, strict=True) if there)
        rows = [item.row for item in items[:size]] if len(items) > size else []
        return _Page(
            Recommendation(items[:size], answer.degradation),
            _next_token(served, identity, shown, rows),
            degradation(answer.degradation, shopper.used, len(shopper.history.items), shopper.available),
        )

    def _note(self, version: str, page: _Page, shopper: _Shopper) -> None:
        note(
            items=len(page.items.items),
            user=log_name(shopper.user) if shopper.user else "-",
            degradation=pb.Degradation.Name(page.degradation).removeprefix("DEGRADATION_").lower(),
            model_version=version,
        )

    async def _allowed(self, served: Served, expression: str) -> BoolArray | None:
        """Return the mask of a filter, [items]; None without a filter."""
        passed("validate")
        if not expression.strip():
            return None
        found = served.cached_mask(expression)
        note(filter_mask="miss" if found is None else "hit")
        with stage("filter"):
            made = (
                found
                if found is not None
                else await self._filters.submit(_FilterJob(served, expression), CALL.get().deadline)
            )
        if isinstance(made, FilterError):
            problem = invalid("filter", str(made), "FILTER_INVALID")
            problem.metadata["column"] = str(made.column)
            raise problem
        return made

    def _still_there(self, rows: Iterable[int]) -> list[bool]:
        """Tell which rows may be shown: an item may have been deleted since the list was made."""
        catalogue = self._host.served.model.catalogue
        return [row >= len(catalogue) or not catalogue.is_hidden(row) for row in rows]


def _make_masks(jobs: Sequence[_FilterJob]) -> list[BoolArray | FilterError]:
    """Evaluate filters in the filter thread; a wrong one is an answer, not a failure."""
    return [_make_mask(job) for job in jobs]


def _make_mask(job: _FilterJob) -> BoolArray | FilterError:
    try:
        return job.served.mask(job.expression)
    except FilterError as error:
        return error


def _exclude(served: Served, item_ids: list[str], shown: paging.HashArray) -> IntArray:
    """Return the rows that must not appear, each once."""
    catalogue = served.model.catalogue
    rows = np.unique(np.concatenate([catalogue.rows(item_ids), served.shown.rows(shown)])).astype(np.int32)
    return rows[rows < len(catalogue)]  # what a later state has added cannot be in this one's lists


def _next_token(served: Served, identity: bytes, shown: paging.HashArray, rows: Sequence[int]) -> str:
    """Return the token after these rows; empty when there are none, because the list ends here."""
    if not rows:
        return ""
    ids = served.model.catalogue.ids
    hashes = np.array([paging.id_hash(ids[row]) for row in rows], dtype=np.uint32)
    return paging.encode(identity, np.concatenate([shown, hashes]))


def _seed(request: pb.SimilarItemsRequest, served: Served, deleted: Sequence[str]) -> int | str:
    """Return the row or the text to start from."""
    kind = request.WhichOneof("seed")
    if kind is None:
        raise invalid("seed", "set item_id or text")
    if kind == "text":
        text = validation.limited_text("text", request.text, validation.MAX_TEXT_CHARS)
        if not text:
            raise invalid("text", "is empty")
        return text[: served.text_chars]
    if not validation.optional_id("item_id", request.item_id):
        raise invalid("item_id", "is empty")
    row = served.model.catalogue.row(request.item_id)
    if row is None or served.model.catalogue.is_hidden(row) or request.item_id in deleted:
        raise Problem(
            grpc.StatusCode.NOT_FOUND,
            "ITEM_NOT_FOUND",
            f"item_id '{request.item_id}' is not in the catalogue; send its text instead",
            metadata={"item_id": request.item_id},
        )
    return row
