"""Recommend and SearchItems: validation, user context, the model's list, and the response."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from serving.api.surfaces import Surfaces
from serving.api.tokens import fingerprint, request_seed
from serving.api.translation import (
    SessionEvents,
    alive_mask,
    degradation,
    merge_history,
    session_events,
    union,
)
from serving.api.user_context import UserContext, UserContextLoader
from serving.core.call_context import annotate
from serving.core.errors import invalid
from serving.experiments.router import ArmRouter
from serving.experiments.selection import Route, Visit
from serving.model.host import ModelHost
from serving.model.interfaces import RecommendJob
from serving.model.served import Served
from serving.model.shown_items import HashArray
from serving.state.contracts.user_state import MICROS, log_name
from serving.transport.call_interceptor import CALL
from shelfwise_client.v1 import recommendations_pb2 as pb

_LOG = logging.getLogger(__name__)
NO_SESSION = SessionEvents([], [], [], [])


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
        router: ArmRouter,
    ) -> None:
        """Wire the parts; see `serving.api.service.RecommendationService`."""
        self._host = host
        self._context_loader = context_loader
        self._config = config
        self._pseudonyms = pseudonyms
        self._tokens = tokens
        self._surfaces = surfaces
        self.router = router
        """Chooses arms of experiments, and the models of lists."""
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
        before = page_tokens.decode_shown(request.page_token, request_hash := fingerprint(request))
        visit = _visit(request, user, before.arms)

        async def make(route: Route) -> pb.RecommendResponse:
            context = await self.load_context(user, now_us if timed else None, host=route.host)
            async with route.host.lease() as served:
                return await self._recommend(
                    request, route, served, user, now_us, context, request_hash, before.shown
                )

        return await self.router.run(self.router.select(visit), make)

    async def _recommend(
        self,
        request: pb.RecommendRequest,
        route: Route,
        served: Served,
        user: str,
        now_us: int,
        context: UserContext,
        request_hash: bytes,
        shown: HashArray,
    ) -> pb.RecommendResponse:
        size = validation.page_size(request.page_size, self._config.max_page_size)
        options = ListOptions.of(request, size, self._surfaces, route.lists)
        intent = validation.free_text("session.intent", request.session.intent)
        device, hour = validation.device_and_hour(request.session)
        session = session_events(request.session, served.model, now_us)
        prepared = await self.prepare(served, options, request_seed(request_hash))
        shopper = self.shopper(served, user, session, now_us, context)
        model_request = self.request(prepared, shopper, now_us, shown)
        job = RecommendJob(served.model, model_request, intent, deadline=CALL.get().deadline)
        page = await self._page(route, served, job, shopper, request_hash, shown)
        self._annotate_page(served, page, shopper, options.surface)
        response = pb.RecommendResponse(
            next_page_token=page.next_token,
            model_version=served.model.version,
            request_id=CALL.get().request_id,
            degradation=page.degradation,
            unknown_item_ids=dict.fromkeys([*session.unknown, *prepared.unknown]),
            attribution_token=self.token(
                served, options.surface, page.items, device, hour, len(shown), route.selection.recorded
            ),
            experiments=route.messages(),
        )
        served.cards.recommended(
            response.items, page.items, intent, options.explain, options.fields, before=len(shown)
        )
        return response

    async def search(self, request: pb.SearchItemsRequest) -> pb.SearchItemsResponse:
        """Return the items that match a text query."""
        now_us = time.time_ns() // 1000
        user = self.stored_id(validation.optional_id("user_id", request.user_id))
        before = page_tokens.decode_shown(request.page_token, request_hash := fingerprint(request))
        visit = _visit(request, user, before.arms)

        async def make(route: Route) -> pb.SearchItemsResponse:
            context = await self.load_context(user, None, host=route.host)
            async with route.host.lease() as served:
                return await self._search(
                    request, route, served, user, now_us, context, request_hash, before.shown
                )

        return await self.router.run(self.router.select(visit), make)

    async def _search(
        self,
        request: pb.SearchItemsRequest,
        route: Route,
        served: Served,
        user: str,
        now_us: int,
        context: UserContext,
        request_hash: bytes,
        shown: HashArray,
    ) -> pb.SearchItemsResponse:
        model = served.model
        query = validation.free_text("query", request.query)
        if not query:
            raise invalid("query", "has no letter or digit" if request.query.strip() else "is empty")
        size = validation.page_size(request.page_size, self._config.max_page_size)
        fields = validation.read_mask(request.read_mask, pb.RecommendedItem)
        excluded = validation.excluded("exclude_item_ids", request.exclude_item_ids)
        surface = validation.surface(request.surface)
        device, hour = validation.device_and_hour(request.session)
        session = session_events(request.session, model, now_us)
        allowed = await self.selector.mask(served, request.filter)
        shopper = self.shopper(served, user, session, now_us, context)
        excluded_ids = [*excluded, *shopper.deleted]
        model_request = Request(
            history=shopper.history,
            now=now_us // MICROS,
            k=size,
            exclude=union(served.model.catalogue.rows(excluded_ids), page_tokens.rows_of(served, shown)),
            allowed=allowed,
            filter=request.filter if allowed is not None else "",
            explain=request.explain,
        )
        job = RecommendJob(model, model_request, query, search=True, deadline=CALL.get().deadline)
        page = await self._page(route, served, job, shopper, request_hash, shown)
        self._annotate_page(served, page, shopper, surface)
        response = pb.SearchItemsResponse(
            next_page_token=page.next_token,
            model_version=model.version,
            request_id=CALL.get().request_id,
            degradation=page.degradation,
            unknown_item_ids=session.unknown,
            attribution_token=self.token(
                served, surface, page.items, device, hour, len(shown), route.selection.recorded
            ),
            experiments=route.messages(),
        )
        served.cards.recommended(
            response.items, page.items, query, request.explain, fields, before=len(shown)
        )
        return response

    async def load_context(
        self, user: str, before_us: int | None, patient: bool = False, host: ModelHost | None = None
    ) -> UserContext:
        """Load a user's context; see `serving.api.user_context.UserContextLoader.load`."""
        # Impressions belong to a history only where the model was trained on them.
        impressions = schema.IMPRESSION in (host or self._host).served.model.kinds
        return await self._context_loader.load(user, before_us, impressions, patient, host)

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
        seen = page_tokens.rows_of(served, shown)
        deleted = served.model.catalogue.rows(shopper.deleted)
        return Request(
            history=shopper.history,
            now=now_us // MICROS,
            k=options.size,
            exclude=union(prepared.exclude, deleted, seen),
            allowed=prepared.allowed,
            filter=options.filter if prepared.allowed is not None else "",
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
        experiments: str = "",
    ) -> str:
        """Return the attribution token of the current call's list.

        Args:
            served: the model.
            surface: where the list is shown.
            answer: the page; None where no chance is involved.
            device: of the session.
            hour: of the session.
            before: items on earlier pages.
            experiments: arms that made the list.
        """
        propensities = tuple(item.propensity for item in answer.items) if answer else ()
        if all(propensity == 1.0 for propensity in propensities):
            propensities = ()
        now, version = time.time_ns() // 1_000_000_000, served.model.version
        return self._tokens.make(
            ListOrigin(
                CALL.get().request_id, version, now, surface, device, hour, before, propensities, experiments
            )
        )

    async def make(
        self, host: ModelHost, served: Served, job: RecommendJob, background: bool = False
    ) -> tuple[Recommendation, bool]:
        """Return a list of `job.request.k` items, and whether there are more."""
        size = job.request.k
        # One more than the page holds, to detect whether there is a next page.
        request = replace(job.request, k=min(size + 1, len(served.model.catalogue)))
        job = replace(job, request=request)
        answer = await host.submit(job, CALL.get().deadline, background=background)
        assert isinstance(answer, Recommendation)
        mask = alive_mask(host, served, [item.row for item in answer.items])
        items = tuple(item for item, alive in zip(answer.items, mask, strict=True) if alive)
        return Recommendation(items[:size], answer.degradation), len(items) > size

    async def _page(
        self,
        route: Route,
        served: Served,
        job: RecommendJob,
        shopper: Shopper,
        request_hash: bytes,
        shown: HashArray,
    ) -> Page:
        """Return a page, with the token of the next one."""
        answer, more = await self.make(route.host, served, job)
        rows = [item.row for item in answer.items] if more else []
        token = page_tokens.next_token(served, request_hash, shown, rows, route.selection.continued)
        return Page(answer, token, degradation_level(answer, shopper))

    def _annotate_page(self, served: Served, page: Page, shopper: Shopper, surface: str) -> None:
        annotate(
            items=len(page.items.items),
            user=log_name(shopper.user) if shopper.user else "-",
            surface=surface or "-",
            degradation=pb.Degradation.Name(page.degradation).removeprefix("DEGRADATION_").lower(),
            model_version=served.model.version,
        )


def _visit(request: pb.RecommendRequest | pb.SearchItemsRequest, user: str, page: str | None) -> Visit:
    """Return what the arms of a request depend on; `page` are the arms of the page before."""
    return Visit(
        user,
        validation.optional_id("session.session_id", request.session.session_id),
        validation.surface(request.surface),
        isinstance(request, pb.SearchItemsRequest),
        CALL.get().arms,
        page,
    )


def degradation_level(answer: Recommendation, shopper: Shopper) -> pb.Degradation:
    """Return the degradation level of a list."""
    return degradation(
        answer.degradation, shopper.stored_events, len(shopper.history.items), shopper.state_available
    )
