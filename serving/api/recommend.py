"""Recommend, SearchItems and SimilarItems: validation, user context, the model's list, and the response."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from conf.serving import ServeConfig
from features.data import schema
from features.data.dataset import BoolArray, IntArray
from features.ingest.privacy import Pseudonyms
from ranking.rerank.rules import Rules
from ranking.types import History, Recommendation, Request
from serving.api import page_tokens, validation
from serving.api.attribution_tokens import AttributionTokens, ListOrigin
from serving.api.filter_masks import RowSelector
from serving.api.list_options import ListOptions
from serving.api.list_rules import list_rules
from serving.api.similar_seed import similar_seed
from serving.api.surfaces import Surfaces
from serving.api.tokens import fingerprint, request_seed
from serving.api.translation import SessionEvents, degradation, merge_history, session_events
from serving.api.user_context import UserContext, UserContextLoader
from serving.core.call_context import annotate
from serving.core.errors import invalid
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
    """The user of a request: session and merged history."""

    user: str
    """Id under which the state stores the user; empty for an anonymous request."""
    session: SessionEvents
    history: History
    stored_events: int
    """Events of the history that came from the state."""
    state_available: bool
    deleted: Sequence[str]
    """Items deleted through other servers whose deletion has not been applied here yet."""


@dataclass(frozen=True)
class ResolvedOptions:
    """List options with filter, rules and exclusions resolved to catalogue rows; independent of the user."""

    served: Served
    options: ListOptions
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


class ListCalls:
    """Handlers of the RPCs that return lists; create it inside a running event loop."""

    def __init__(
        self,
        host: ModelHost,
        context_loader: UserContextLoader,
        config: ServeConfig,
        pseudonyms: Pseudonyms | None,
        tokens: AttributionTokens,
        surfaces: Surfaces,
    ) -> None:
        """Wire the parts; see `serving.api.service.RecommendationService`."""
        self._host = host
        self._context_loader = context_loader
        self._config = config
        self._pseudonyms = pseudonyms
        self._tokens = tokens
        self._surfaces = surfaces
        self.selector = RowSelector(config, host)
        """Computes filter masks and attribute codes."""

    async def close(self) -> None:
        """Finish queued work and stop the filter thread."""
        await self.selector.close()

    def stored_id(self, user_id: str) -> str:
        """Return the id under which the state stores a user: the pseudonym where pseudonyms are on."""
        return self._pseudonyms.of(user_id) if self._pseudonyms and user_id else user_id

    async def recommend(self, request: pb.RecommendRequest) -> pb.RecommendResponse:
        """Return a personalised list."""
        timed = request.HasField("request_time")
        now_us = validation.micros("request_time", request.request_time) if timed else time.time_ns() // 1000
        user = self.stored_id(validation.optional_id("user_id", request.user_id))
        context = await self.load_context(user, now_us if timed else None)
        async with self._host.lease() as served:
            return await self._recommend(request, served, user, now_us, context)

    async def _recommend(
        self, request: pb.RecommendRequest, served: Served, user: str, now_us: int, context: UserContext
    ) -> pb.RecommendResponse:
        size = validation.page_size(request.page_size, self._config.max_page_size)
        shown = page_tokens.decode_shown(request.page_token, request_hash := fingerprint(request))
        options = ListOptions.of(request, size, self._surfaces)
        intent = validation.free_text("session.intent", request.session.intent)
        device, hour = _device_and_hour(request.session)
        session = session_events(request.session, served.model, now_us)
        prepared = await self.prepare(served, options, request_seed(request_hash))
        shopper = self.shopper(served, user, session, now_us, context)
        model_request = self.request(prepared, shopper, now_us, shown)
        job = RecommendJob(served.model, model_request, intent)
        page = await self._page(served, job, shopper, request_hash, shown)
        self._annotate_page(served, page, shopper, options.surface)
        response = pb.RecommendResponse(
            next_page_token=page.next_token,
            model_version=served.model.version,
            request_id=CALL.get().request_id,
            degradation=page.degradation,
            unknown_item_ids=dict.fromkeys([*session.unknown, *prepared.unknown]),
            attribution_token=self.token(
                served, options.surface, page.items, device, hour, before=len(shown)
            ),
        )
        served.cards.recommended(
            response.items, page.items, intent, options.explain, options.fields, before=len(shown)
        )
        return response

    async def search(self, request: pb.SearchItemsRequest) -> pb.SearchItemsResponse:
        """Return the items that match a text query."""
        now_us = time.time_ns() // 1000
        user = self.stored_id(validation.optional_id("user_id", request.user_id))
        context = await self.load_context(user, None)
        async with self._host.lease() as served:
            return await self._search(request, served, user, now_us, context)

    async def _search(
        self, request: pb.SearchItemsRequest, served: Served, user: str, now_us: int, context: UserContext
    ) -> pb.SearchItemsResponse:
        model = served.model
        query = validation.free_text("query", request.query)
        if not query:
            raise invalid("query", "has no letter or digit" if request.query.strip() else "is empty")
        size = validation.page_size(request.page_size, self._config.max_page_size)
        shown = page_tokens.decode_shown(request.page_token, request_hash := fingerprint(request))
        fields = validation.read_mask(request.read_mask, pb.RecommendedItem)
        excluded = validation.excluded("exclude_item_ids", request.exclude_item_ids)
        surface = validation.surface(request.surface)
        device, hour = _device_and_hour(request.session)
        session = session_events(request.session, model, now_us)
        allowed = await self.selector.mask(served, request.filter)
        shopper = self.shopper(served, user, session, now_us, context)
        excluded_ids = [*excluded, *shopper.deleted]
        model_request = Request(
            history=shopper.history,
            now=now_us // MICROS,
            k=size,
            exclude=_union(served.model.catalogue.rows(excluded_ids), _rows_of(served, shown)),
            allowed=allowed,
            explain=request.explain,
        )
        job = RecommendJob(model, model_request, query, search=True)
        page = await self._page(served, job, shopper, request_hash, shown)
        self._annotate_page(served, page, shopper, surface)
        response = pb.SearchItemsResponse(
            next_page_token=page.next_token,
            model_version=model.version,
            request_id=CALL.get().request_id,
            degradation=page.degradation,
            unknown_item_ids=session.unknown,
            attribution_token=self.token(served, surface, page.items, device, hour, before=len(shown)),
        )
        served.cards.recommended(
            response.items, page.items, query, request.explain, fields, before=len(shown)
        )
        return response

    async def similar(self, request: pb.SimilarItemsRequest) -> pb.SimilarItemsResponse:
        """Return the items whose texts are most similar to the seed's."""
        context = await self._context_loader.load("")
        async with self._host.lease() as served:
            return await self._similar(request, served, context)

    async def _similar(
        self, request: pb.SimilarItemsRequest, served: Served, context: UserContext
    ) -> pb.SimilarItemsResponse:
        call, model = CALL.get(), served.model
        size = validation.page_size(request.page_size, self._config.max_page_size)
        shown = page_tokens.decode_shown(request.page_token, request_hash := fingerprint(request))
        fields = validation.read_mask(request.read_mask, pb.SimilarItem)
        excluded = validation.excluded("exclude_item_ids", request.exclude_item_ids)
        surface = validation.surface(request.surface)
        seed = similar_seed(request, served, context.deleted_items)
        excluded_ids = [*excluded, *context.deleted_items]
        own = np.array([seed] if isinstance(seed, int) else [], dtype=np.int32)
        exclude = _union(model.catalogue.rows(excluded_ids), _rows_of(served, shown), own)
        allowed = await self.selector.mask(served, request.filter)
        job = SimilarJob(model, seed, min(size + 1, len(model.catalogue)), exclude, allowed)
        answer = await self._host.submit(job, call.deadline)
        annotate(model_version=model.version)
        assert isinstance(answer, Neighbours)
        alive = self._alive_mask(served, answer.rows.tolist())
        found, cosines = answer.rows[alive], answer.cosines[alive]
        rows = found[:size].tolist() if len(found) > size else []
        response = pb.SimilarItemsResponse(
            next_page_token=_next_token(served, request_hash, shown, rows),
            model_version=model.version,
            request_id=call.request_id,
            attribution_token=self.token(served, surface),
        )
        served.cards.similar(response.items, found[:size], cosines[:size], fields, before=len(shown))
        return response

    async def load_context(self, user: str, before_us: int | None, patient: bool = False) -> UserContext:
        """Load a user's context; see `serving.api.user_context.UserContextLoader.load`."""
        # Impressions belong to a history only where the model was trained on them.
        impressions = schema.IMPRESSION in self._host.served.model.kinds
        return await self._context_loader.load(user, before_us, impressions, patient)

    async def prepare(self, served: Served, options: ListOptions, seed: int) -> ResolvedOptions:
        """Resolve list options to catalogue rows.

        Args:
            served: the model and its catalogue.
            options: options of the request.
            seed: for exploration that sets none.

        Raises:
            ApiError: a filter or rule that is invalid for this catalogue.
        """
        allowed = await self.selector.mask(served, options.filter)
        rules, unknown = await list_rules(options.rules, served, self.selector, seed)
        excluded = served.model.catalogue.rows(options.excluded)
        return ResolvedOptions(served, options, allowed, excluded, rules, unknown)

    def request(self, prepared: ResolvedOptions, shopper: Shopper, now_us: int, shown: HashArray) -> Request:
        """Return the model request of one user and page."""
        served, options, rules = prepared.served, prepared.options, prepared.rules
        seen = _rows_of(served, shown)
        deleted = served.model.catalogue.rows(shopper.deleted)
        return Request(
            history=shopper.history,
            now=now_us // MICROS,
            k=options.size,
            exclude=_union(prepared.exclude, deleted, seen),
            allowed=prepared.allowed,
            exclude_seen=served.model.exclude_seen if options.exclude_seen is None else options.exclude_seen,
            diversity=served.diversity if options.diversity is None else options.diversity,
            novelty=options.novelty,
            explain=options.explain,
            rules=rules and replace(rules, shown=seen, before=len(shown)),
        )

    def shopper(
        self, served: Served, user: str, session: SessionEvents, now_us: int, context: UserContext
    ) -> Shopper:
        """Merge the stored events of a user with those of the session."""
        history, stored_events = merge_history(
            served.model, context.events or (), session, now_us // MICROS, self._config.max_history
        )
        available = context.events is not None or not user
        return Shopper(user, session, history, stored_events, available, context.deleted_items)

    def token(
        self,
        served: Served,
        surface: str,
        answer: Recommendation | None = None,
        device: str = "",
        hour: int | None = None,
        before: int = 0,
    ) -> str:
        """Return the attribution token of the current call's list.

        Args:
            served: the model.
            surface: where the list is shown.
            answer: the page; None where no chance is involved.
            device: of the session.
            hour: of the session.
            before: items on earlier pages.
        """
        propensities = tuple(item.propensity for item in answer.items) if answer else ()
        if all(propensity == 1.0 for propensity in propensities):
            propensities = ()
        now, version = time.time_ns() // 1_000_000_000, served.model.version
        origin = ListOrigin(CALL.get().request_id, version, now, surface, device, hour, before, propensities)
        return self._tokens.make(origin)

    async def make(
        self, served: Served, job: RecommendJob, background: bool = False
    ) -> tuple[Recommendation, bool]:
        """Return a list of `job.request.k` items, and whether there are more."""
        size = job.request.k
        # One more than the page holds, to detect whether there is a next page.
        request = replace(job.request, k=min(size + 1, len(served.model.catalogue)))
        job = replace(job, request=request)
        answer = await self._host.submit(job, CALL.get().deadline, background=background)
        assert isinstance(answer, Recommendation)
        mask = self._alive_mask(served, [item.row for item in answer.items])
        items = tuple(item for item, alive in zip(answer.items, mask, strict=True) if alive)
        return Recommendation(items[:size], answer.degradation), len(items) > size

    async def _page(
        self, served: Served, job: RecommendJob, shopper: Shopper, request_hash: bytes, shown: HashArray
    ) -> Page:
        """Return a page, with the token of the next one."""
        answer, more = await self.make(served, job)
        rows = [item.row for item in answer.items] if more else []
        return Page(
            answer, _next_token(served, request_hash, shown, rows), degradation_level(answer, shopper)
        )

    def _annotate_page(self, served: Served, page: Page, shopper: Shopper, surface: str) -> None:
        annotate(
            items=len(page.items.items),
            user=log_name(shopper.user) if shopper.user else "-",
            surface=surface or "-",
            degradation=pb.Degradation.Name(page.degradation).removeprefix("DEGRADATION_").lower(),
            model_version=served.model.version,
        )

    def _alive_mask(self, served: Served, rows: Sequence[int]) -> list[bool]:
        """Return the mask of rows whose items have not been deleted since the list was made, [rows].

        The served model may have been replaced since; then rows are matched by item id.
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
    """Return the degradation level of a list."""
    return degradation(
        answer.degradation, shopper.stored_events, len(shopper.history.items), shopper.state_available
    )


def _device_and_hour(session: pb.SessionContext) -> tuple[str, int | None]:
    """Return the session's device and hour of the day."""
    device = validation.device("session.device", session.device)
    return device, validation.hour("session.hour", session.hour) if session.HasField("hour") else None


def _rows_of(served: Served, shown: HashArray) -> IntArray:
    """Return the rows of the items on earlier pages."""
    if len(shown) == 0:
        return _NO_ROWS
    rows = served.shown.rows(shown).astype(np.int32)
    return rows[rows < len(served.model.catalogue)]  # items added later are unknown to this state


def _union(*rows: IntArray) -> IntArray:
    """Return the union of excluded rows, each once; mostly empty."""
    nonempty = [part for part in rows if len(part)]
    return np.unique(np.concatenate(nonempty)) if nonempty else rows[0]


def _next_token(served: Served, request_hash: bytes, shown: HashArray, rows: Sequence[int]) -> str:
    """Return the token of the page after these rows; empty without rows: the list ends here."""
    if not rows:
        return ""
    ids = served.model.catalogue.ids
    hashes = np.array([id_hash(ids[row]) for row in rows], dtype=np.uint32)
    return page_tokens.encode_shown(request_hash, np.concatenate([shown, hashes]))
