"""Recommend, SearchItems and SimilarItems: a request is checked, asked of state and model, and answered."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import grpc
import numpy as np

from conf.serving import ServeConfig
from features.data import schema
from features.data.dataset import BoolArray, IntArray
from features.ingest.privacy import Pseudonyms
from ranking.rerank.rules import Rules
from ranking.types import History, Recommendation, Request
from serving.api import page_tokens, validation
from serving.api.attribution_tokens import AttributionTokens, ListOrigin
from serving.api.filter_masks import Selection
from serving.api.list_options import ListOptions
from serving.api.list_rules import list_rules
from serving.api.surfaces import Surfaces
from serving.api.tokens import fingerprint, request_seed
from serving.api.translation import SessionEvents, degradation, merge_history, session_events
from serving.api.user_context import Recalled, UserContextLoader
from serving.core.call_context import annotate
from serving.core.errors import ApiError, invalid
from serving.model.host import ModelHost
from serving.model.interfaces import Neighbours, RecommendJob, SimilarJob
from serving.model.served import Served
from serving.model.shown_items import HashArray, id_hash
from serving.state.contracts.user_state import MICROS, log_name
from serving.transport.call_interceptor import CALL
from shelfwise_client.v1 import recommendations_pb2 as pb

_LOG = logging.getLogger(__name__)
NO_SESSION = SessionEvents([], [], [], [])
_NO_ROWS = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True)
class Shopper:
    """Whom a list is made for, as far as is known."""

    user: str
    """Under the name by which the state knows them; empty for nobody."""
    session: SessionEvents
    history: History
    used: int
    """Events of the history that were stored ones."""
    available: bool
    """Whether the state could be read."""
    deleted: Sequence[str]
    """Items that other servers have deleted and this one still has."""


@dataclass(frozen=True)
class ResolvedOptions:
    """A wish in terms of the items that are served; the same for whomever it is fulfilled."""

    served: Served
    wish: ListOptions
    allowed: BoolArray | None
    exclude: IntArray
    rules: Rules | None
    unknown: list[str]
    """Pinned ids that the model does not know."""


@dataclass(frozen=True)
class Page:
    """One page of a list."""

    items: Recommendation
    next_token: str
    degradation: pb.Degradation


class Lists:
    """Makes the lists of the service; create it inside a running event loop."""

    def __init__(
        self,
        host: ModelHost,
        recall: UserContextLoader,
        config: ServeConfig,
        pseudonyms: Pseudonyms | None,
        tokens: AttributionTokens,
        surfaces: Surfaces,
    ) -> None:
        """Wire the parts; see `serving.api.service.RecommendationService`."""
        self._host = host
        self._recall = recall
        self._config = config
        self._pseudonyms = pseudonyms
        self._tokens = tokens
        self._surfaces = surfaces
        self.selection = Selection(config, host)
        """Works out filters and attribute values."""

    async def close(self) -> None:
        """Finish running work and stop the thread."""
        await self.selection.close()

    def known_as(self, user_id: str) -> str:
        """Return the name under which the state knows a user."""
        return self._pseudonyms.of(user_id) if self._pseudonyms and user_id else user_id

    async def recommend(self, request: pb.RecommendRequest) -> pb.RecommendResponse:
        """Answer with a personalised list."""
        asked = request.HasField("request_time")
        now_us = validation.micros("request_time", request.request_time) if asked else time.time_ns() // 1000
        user = self.known_as(validation.optional_id("user_id", request.user_id))
        recalled = await self.recall(user, now_us if asked else None)
        async with self._host.lease() as served:
            return await self._recommend(request, served, user, now_us, recalled)

    async def _recommend(
        self, request: pb.RecommendRequest, served: Served, user: str, now_us: int, recalled: Recalled
    ) -> pb.RecommendResponse:
        size = validation.page_size(request.page_size, self._config.max_page_size)
        shown = page_tokens.decode_shown(request.page_token, identity := fingerprint(request))
        wish = ListOptions.of(request, size, self._surfaces)
        intent = validation.spoken("session.intent", request.session.intent)
        device, hour = _circumstances(request.session)
        session = session_events(request.session, served.model, now_us)
        prepared = await self.prepare(served, wish, request_seed(identity))
        shopper = self.shopper(served, user, session, now_us, recalled)
        wanted = self.request(prepared, shopper, now_us, shown)
        page = await self._page(served, RecommendJob(served.model, wanted, intent), shopper, identity, shown)
        self._note(served, page, shopper, wish.surface)
        response = pb.RecommendResponse(
            next_page_token=page.next_token,
            model_version=served.model.version,
            request_id=CALL.get().request_id,
            degradation=page.degradation,
            unknown_item_ids=dict.fromkeys([*session.unknown, *prepared.unknown]),
            attribution_token=self.token(served, wish.surface, device, hour),
        )
        served.cards.recommended(
            response.items, page.items, intent, wish.explain, wish.fields, before=len(shown)
        )
        return response

    async def search(self, request: pb.SearchItemsRequest) -> pb.SearchItemsResponse:
        """Answer with the items that read like some words."""
        now_us = time.time_ns() // 1000
        user = self.known_as(validation.optional_id("user_id", request.user_id))
        recalled = await self.recall(user, None)
        async with self._host.lease() as served:
            return await self._search(request, served, user, now_us, recalled)

    async def _search(
        self, request: pb.SearchItemsRequest, served: Served, user: str, now_us: int, recalled: Recalled
    ) -> pb.SearchItemsResponse:
        model = served.model
        query = validation.spoken("query", request.query)
        if not query:
            raise invalid("query", "has no letter or digit" if request.query.strip() else "is empty")
        size = validation.page_size(request.page_size, self._config.max_page_size)
        shown = page_tokens.decode_shown(request.page_token, identity := fingerprint(request))
        fields = validation.read_mask(request.read_mask, pb.RecommendedItem)
        excluded = validation.excluded("exclude_item_ids", request.exclude_item_ids)
        surface = validation.surface(request.surface)
        device, hour = _circumstances(request.session)
        session = session_events(request.session, model, now_us)
        allowed = await self.selection.rows(served, request.filter)
        shopper = self.shopper(served, user, session, now_us, recalled)
        gone = [*excluded, *shopper.deleted]
        wanted = Request(
            history=shopper.history,
            now=now_us // MICROS,
            k=size,
            exclude=_union(served.model.catalogue.rows(gone), _rows_of(served, shown)),
            allowed=allowed,
            explain=request.explain,
        )
        job = RecommendJob(model, wanted, query, search=True)
        page = await self._page(served, job, shopper, identity, shown)
        self._note(served, page, shopper, surface)
        response = pb.SearchItemsResponse(
            next_page_token=page.next_token,
            model_version=model.version,
            request_id=CALL.get().request_id,
            degradation=page.degradation,
            unknown_item_ids=session.unknown,
            attribution_token=self.token(served, surface, device, hour),
        )
        served.cards.recommended(
            response.items, page.items, query, request.explain, fields, before=len(shown)
        )
        return response

    async def similar(self, request: pb.SimilarItemsRequest) -> pb.SimilarItemsResponse:
        """Answer with the items whose texts are most alike."""
        recalled = await self._recall.ask("")
        async with self._host.lease() as served:
            return await self._similar(request, served, recalled)

    async def _similar(
        self, request: pb.SimilarItemsRequest, served: Served, recalled: Recalled
    ) -> pb.SimilarItemsResponse:
        call, model = CALL.get(), served.model
        size = validation.page_size(request.page_size, self._config.max_page_size)
        shown = page_tokens.decode_shown(request.page_token, identity := fingerprint(request))
        fields = validation.read_mask(request.read_mask, pb.SimilarItem)
        excluded = validation.excluded("exclude_item_ids", request.exclude_item_ids)
        surface = validation.surface(request.surface)
        seed = _seed(request, served, recalled.deleted_items)
        gone = [*excluded, *recalled.deleted_items]
        own = np.array([seed] if isinstance(seed, int) else [], dtype=np.int32)
        exclude = _union(model.catalogue.rows(gone), _rows_of(served, shown), own)
        allowed = await self.selection.rows(served, request.filter)
        job = SimilarJob(model, seed, min(size + 1, len(model.catalogue)), exclude, allowed)
        answer = await self._host.ask(job, call.deadline)
        annotate(model_version=model.version)
        assert isinstance(answer, Neighbours)
        kept = self._still_there(served, answer.rows.tolist())
        found, cosines = answer.rows[kept], answer.cosines[kept]
        rows = found[:size].tolist() if len(found) > size else []
        response = pb.SimilarItemsResponse(
            next_page_token=_next_token(served, identity, shown, rows),
            model_version=model.version,
            request_id=call.request_id,
            attribution_token=self.token(served, surface),
        )
        served.cards.similar(response.items, found[:size], cosines[:size], fields, before=len(shown))
        return response

    async def recall(self, user: str, before_us: int | None, patient: bool = False) -> Recalled:
        """Ask the state about a user; see `serving.api.user_context.UserContextLoader.ask`."""
        # What a list shows is part of a history only where the model has learnt from such events.
        impressions = schema.IMPRESSION in self._host.served.model.kinds
        return await self._recall.ask(user, before_us, impressions, patient)

    async def prepare(self, served: Served, wish: ListOptions, seed: int) -> ResolvedOptions:
        """Bring a wish to rows of the items that are served.

        Args:
            served: the items.
            wish: what is asked for.
            seed: for exploration that sets none.

        Raises:
            ApiError: a filter or rule that cannot be used with these items.
        """
        allowed = await self.selection.rows(served, wish.filter)
        rules, unknown = await list_rules(wish.rules, served, self.selection, seed)
        excluded = served.model.catalogue.rows(wish.excluded)
        return ResolvedOptions(served, wish, allowed, excluded, rules, unknown)

    def request(self, prepared: ResolvedOptions, shopper: Shopper, now_us: int, shown: HashArray) -> Request:
        """Return the question to the model for one shopper and page."""
        served, wish, rules = prepared.served, prepared.wish, prepared.rules
        seen = _rows_of(served, shown)
        deleted = served.model.catalogue.rows(shopper.deleted)
        return Request(
            history=shopper.history,
            now=now_us // MICROS,
            k=wish.size,
            exclude=_union(prepared.exclude, deleted, seen),
            allowed=prepared.allowed,
            exclude_seen=served.model.exclude_seen if wish.exclude_seen is None else wish.exclude_seen,
            diversity=served.diversity if wish.diversity is None else wish.diversity,
            novelty=wish.novelty,
            explain=wish.explain,
            rules=rules and replace(rules, shown=seen, before=len(shown)),
        )

    def shopper(
        self, served: Served, user: str, session: SessionEvents, now_us: int, recalled: Recalled
    ) -> Shopper:
        """Bring together what is stored about a user and what the session says."""
        history, used = merge_history(
            served.model, recalled.events or (), session, now_us // MICROS, self._config.max_history
        )
        available = recalled.events is not None or not user
        return Shopper(user, session, history, used, available, recalled.deleted_items)

    def token(self, served: Served, surface: str, device: str = "", hour: int | None = None) -> str:
        """Return the attribution token of the list that the current call answers with."""
        now = time.time_ns() // 1_000_000_000
        version = served.model.version
        return self._tokens.make(ListOrigin(CALL.get().request_id, version, now, surface, device, hour))

    async def make(
        self, served: Served, job: RecommendJob, background: bool = False
    ) -> tuple[Recommendation, bool]:
        """Have a list made of `job.request.k` items; tell whether more would follow."""
        size = job.request.k
        # One more than the page holds, to know whether there is a next one.
        request = replace(job.request, k=min(size + 1, len(served.model.catalogue)))
        job = replace(job, request=request)
        answer = await self._host.ask(job, CALL.get().deadline, background=background)
        assert isinstance(answer, Recommendation)
        kept = self._still_there(served, [item.row for item in answer.items])
        items = tuple(item for item, there in zip(answer.items, kept, strict=True) if there)
        return Recommendation(items[:size], answer.degradation), len(items) > size

    async def _page(
        self, served: Served, job: RecommendJob, shopper: Shopper, identity: bytes, shown: HashArray
    ) -> Page:
        """Have a page made, with the token of the next one."""
        answer, more = await self.make(served, job)
        rows = [item.row for item in answer.items] if more else []
        return Page(answer, _next_token(served, identity, shown, rows), degradation_level(answer, shopper))

    def _note(self, served: Served, page: Page, shopper: Shopper, surface: str) -> None:
        annotate(
            items=len(page.items.items),
            user=log_name(shopper.user) if shopper.user else "-",
            surface=surface or "-",
            degradation=pb.Degradation.Name(page.degradation).removeprefix("DEGRADATION_").lower(),
            model_version=served.model.version,
        )

    def _still_there(self, served: Served, rows: Sequence[int]) -> list[bool]:
        """Tell which rows of a list may be shown: an item may have been deleted since the list was made.

        Another model may have taken over since, in which an item has another row.
        """
        newest = self._host.served
        catalogue = newest.model.catalogue
        if catalogue.hidden is None:
            return [True for _ in rows]
        if newest.same_model(served):
            return [row >= len(catalogue) or not catalogue.is_hidden(row) for row in rows]
        ids = served.model.catalogue.ids
        found = [catalogue.row(ids[row]) for row in rows]
        return [row is None or not catalogue.is_hidden(row) for row in found]


def degradation_level(answer: Recommendation, shopper: Shopper) -> pb.Degradation:
    """Name the rung of the fallback ladder that answered."""
    return degradation(answer.degradation, shopper.used, len(shopper.history.items), shopper.available)


def _circumstances(session: pb.SessionContext) -> tuple[str, int | None]:
    """Return device and hour."""
    device = validation.device("session.device", session.device)
    return device, validation.hour("session.hour", session.hour) if session.HasField("hour") else None


def _rows_of(served: Served, shown: HashArray) -> IntArray:
    """Return the rows of the items on other pages."""
    if len(shown) == 0:
        return _NO_ROWS
    rows = served.shown.rows(shown).astype(np.int32)
    return rows[rows < len(served.model.catalogue)]  # a later state's items are in no list of this one


def _union(*rows: IntArray) -> IntArray:
    """Return the rows that must not appear, each once; mostly there are none."""
    some = [part for part in rows if len(part)]
    return np.unique(np.concatenate(some)) if some else rows[0]


def _next_token(served: Served, identity: bytes, shown: HashArray, rows: Sequence[int]) -> str:
    """Return the token after these rows; empty when there are none, because the list ends here."""
    if not rows:
        return ""
    ids = served.model.catalogue.ids
    hashes = np.array([id_hash(ids[row]) for row in rows], dtype=np.uint32)
    return page_tokens.encode_shown(identity, np.concatenate([shown, hashes]))


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
        raise ApiError(
            grpc.StatusCode.NOT_FOUND,
            "ITEM_NOT_FOUND",
            f"item_id '{request.item_id}' is not in the catalogue; send its text instead",
            metadata={"item_id": request.item_id},
        )
    return row
