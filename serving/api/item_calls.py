"""The RPCs about items: each checks its request, stores what changes, and waits until lists know it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc

from conf.serving import ServeConfig
from ranking.catalogue.item_values import sendable
from ranking.catalogue.live_catalogue import ItemChange
from serving.api import page_tokens, tokens, validation
from serving.api.attribute_rows import check_declarations, other_type
from serving.api.filter_masks import Selection
from serving.api.item_updates import Update, make_round, read_update, values_of
from serving.api.items import MAX_ITEMS, Fault, check_deletes, check_items, id_fault, reject
from serving.api.user_context import UserContextLoader
from serving.core.call_context import annotate, mark_stage, stage
from serving.core.errors import ApiError, invalid
from serving.model.host import ModelHost
from serving.model.served import Served
from serving.state.contracts.item_changes import ItemChanges
from serving.transport.call_interceptor import CALL
from shelfwise_client.v1 import recommendations_pb2 as pb

_FIELDS: Final = {
    pb.RowReject.ITEM_ID: "item.item_id",
    pb.RowReject.UPDATE_MASK: "update_mask",
}
"""The field of UpdateItemRequest that a reason is about; the others are about `item.attributes`."""
_REASONS: Final = (pb.RowReject.ITEM_TEXT, pb.RowReject.CATALOGUE_FULL)
"""Reasons that an error has under their own names."""


class ItemCalls:
    """Reads and changes items for the service; use it inside the event loop."""

    def __init__(
        self,
        host: ModelHost,
        changes: ItemChanges,
        recall: UserContextLoader,
        selection: Selection,
        config: ServeConfig,
    ) -> None:
        """Wire the parts; see `serving.api.service.RecommendationService`."""
        self._host = host
        self._changes = changes
        self._recall = recall
        self._selection = selection
        self._config = config

    async def get(self, request: pb.GetItemRequest) -> pb.GetItemResponse:
        """Answer with an item as it is served."""
        if fault := id_fault(request.item_id):
            raise invalid("item_id", fault.removeprefix("item_id "))
        recalled = await self._recall.ask("")
        catalogue = self._host.served.model.catalogue
        row = catalogue.row(request.item_id)
        if row is None or catalogue.is_hidden(row) or request.item_id in recalled.deleted_items:
            raise _missing(request.item_id)
        item = message_of(request.item_id, catalogue.contents([row])[0])
        return pb.GetItemResponse(item=item, request_id=CALL.get().request_id)

    async def list(self, request: pb.ListItemsRequest) -> pb.ListItemsResponse:
        """Answer with a page of the items."""
        size = validation.page_size(request.page_size, self._config.max_page_size)
        identity = tokens.fingerprint(request)
        after = page_tokens.decode_place(page_tokens.ITEM_PLACE, request.page_token, identity)
        recalled = await self._recall.ask("")
        async with self._host.lease() as served:
            allowed = await self._selection.rows(served, request.filter)
            rows = await self._selection.after(served, after, size + 1, allowed)
        catalogue, response = served.model.catalogue, pb.ListItemsResponse(request_id=CALL.get().request_id)
        taken, room = 0, self._config.max_message_bytes // 2
        for row, values in zip(rows[:size], catalogue.contents(rows[:size]), strict=True):
            item = message_of(catalogue.ids[row], values)
            room -= item.ByteSize()
            if taken and room < 0:
                break
            taken += 1
            if item.item_id not in recalled.deleted_items:
                response.items.append(item)
        if len(rows) > taken:
            response.next_page_token = page_tokens.encode_place(
                page_tokens.ITEM_PLACE, identity, catalogue.ids[rows[taken - 1]]
            )
        annotate(items=len(response.items))
        return response

    async def upsert(self, request: pb.UpsertItemsRequest) -> pb.UpsertItemsResponse:
        """Add or replace items; they can be found before this returns."""
        call, served = CALL.get(), self._host.served
        checked = check_items(request.items, served.model.catalogue, served.template, self._room(served))
        if any(row.reason == pb.RowReject.ITEM_ATTRIBUTES for row in checked.rejects):
            await self._recall.ask("")  # another server may have declared the attribute a moment ago
            served = self._host.served
            checked = check_items(request.items, served.model.catalogue, served.template, self._room(served))
        mark_stage("validate")
        if checked.changes and not request.validate_only:
            with stage("store_items"):
                revision = await self._changes.store(checked.changes, call.deadline)
            await self._settle(revision)
        if not request.validate_only:
            annotate(upserted_items=len(checked.changes), rejected_items=len(checked.rejects))
        return pb.UpsertItemsResponse(
            upserted_count=len(checked.changes), rejects=checked.rejects, request_id=call.request_id
        )

    async def delete(self, request: pb.DeleteItemsRequest) -> pb.DeleteItemsResponse:
        """Remove items; they are in no response after this one."""
        call, catalogue = CALL.get(), self._host.served.model.catalogue
        item_ids = check_deletes(request.item_ids)
        rows = [catalogue.row(item_id) for item_id in item_ids]
        gone = [row is None or catalogue.is_hidden(row) for row in rows]
        if any(gone):
            await self._recall.ask("")  # another server may have added the item a moment ago
            catalogue = self._host.served.model.catalogue
            rows = [catalogue.row(item_id) for item_id in item_ids]
            gone = [row is None or catalogue.is_hidden(row) for row in rows]
        mark_stage("validate")
        if not request.validate_only:
            with stage("store_items"):
                changes = [ItemChange(item_id, None) for item_id in item_ids]
                revision = await self._changes.store(changes, call.deadline)
            await self._settle(revision)
        unknown = [item_id for item_id, was in zip(item_ids, gone, strict=True) if was]
        if not request.validate_only:
            annotate(deleted_items=len(item_ids) - len(unknown))
        return pb.DeleteItemsResponse(
            deleted_count=len(item_ids) - len(unknown), unknown_item_ids=unknown, request_id=call.request_id
        )

    async def update(self, request: pb.UpdateItemRequest) -> pb.UpdateItemResponse:
        """Change attributes of an item, and answer with what it is then."""
        made, faults = await self._update([request], request.validate_only)
        if not request.validate_only:
            annotate(updated_items=len(made), rejected_items=len(faults))
        if faults:
            raise _problem(request, faults[0])
        values = values_of(made[0], self._host.served.model.catalogue)
        item = message_of(request.item.item_id, values)
        return pb.UpdateItemResponse(item=item, request_id=CALL.get().request_id)

    async def batch_update(self, request: pb.BatchUpdateItemsRequest) -> pb.BatchUpdateItemsResponse:
        """Change attributes of many items."""
        if not request.requests:
            raise invalid("requests", "is empty; send at least one")
        if len(request.requests) > MAX_ITEMS:
            raise invalid("requests", f"{len(request.requests):,} rows; send at most {MAX_ITEMS:,} per call")
        made, faults = await self._update(request.requests, request.validate_only)
        if not request.validate_only:
            annotate(updated_items=len(made), rejected_items=len(faults))
        return pb.BatchUpdateItemsResponse(
            updated_count=len(made),
            rejects=[reject(index, fault) for index, fault in sorted(faults.items())],
            request_id=CALL.get().request_id,
        )

    async def declare(self, request: pb.DeclareAttributesRequest) -> pb.DeclareAttributesResponse:
        """Add attributes that items may have."""
        call, declared = CALL.get(), await self._changes.declared()
        wanted = check_declarations(request.attributes, self._host.served.model.catalogue, declared)
        mark_stage("validate")
        if not request.validate_only:
            with stage("store_items"):
                done = await self._changes.declare(wanted, call.deadline)
            for name, kind in done.others.items():  # declared through another server a moment ago
                raise other_type([row.name for row in request.attributes].index(name), name, kind)
            await self._settle(done.revision)
        new = sum(declaration.name not in declared for declaration in wanted)
        return pb.DeclareAttributesResponse(declared_count=new, request_id=call.request_id)

    async def _update(
        self, rows: Sequence[pb.UpdateItemRequest], only_try: bool
    ) -> tuple[dict[int, ItemChange], dict[int, Fault]]:
        """Make updates; return what became of the items, and why some cannot be made, by position."""
        await self._recall.ask("")  # another server may have declared an attribute a moment ago
        deadline, served = CALL.get().deadline, self._host.served
        catalogue = served.model.catalogue
        read = [read_update(row, catalogue) for row in rows]
        waiting = {at: update for at, update in enumerate(read) if isinstance(update, Update)}
        faults: dict[int, Fault] = {at: f for at, f in enumerate(read) if not isinstance(f, Update)}
        mark_stage("validate")
        made: dict[int, ItemChange] = {}
        revision = 0
        while waiting:
            with stage("store_items"):
                ids = list(dict.fromkeys(update.item_id for update in waiting.values()))
                found = dict(zip(ids, await self._changes.contents(ids, deadline), strict=True))
                stored = {item_id: content for item_id, (_, content) in found.items()}
                done = make_round(waiting, stored, catalogue, served.template, self._room(served))
                again: set[str] = set()
                if done.changes and not only_try:
                    changes = list(done.changes.values())
                    known = [found[change.item_id][0] for change in changes]
                    replaced = await self._changes.replace(changes, known, deadline)
                    again = {changes[place].item_id for place in replaced.others}
                    revision = max(revision, replaced.revision)
            faults.update((at, f) for at, f in done.faults.items() if waiting[at].item_id not in again)
            made.update((at, change) for at, change in done.made.items() if change.item_id not in again)
            waiting = {at: update for at, update in waiting.items() if update.item_id in again}
        if revision:
            await self._settle(revision)
        return made, faults

    async def _settle(self, revision: int) -> None:
        """Wait until lists know a change, here and for whoever asks another server."""
        with stage("apply"):
            await self._host.reach(revision, CALL.get().deadline)
            await self._changes.acknowledge(revision)

    def _room(self, served: Served) -> int:
        """Return how many items may be added."""
        catalogue = served.model.catalogue
        return self._config.max_live_items - (len(catalogue) - len(catalogue.base))


def message_of(item_id: str, values: dict[str, object]) -> pb.Item:
    """Return an item's message; values are typed as a catalogue's columns."""
    item = pb.Item(item_id=item_id)
    attributes: dict[str, Any] = sendable(values)
    item.attributes.update(attributes)
    return item


def _missing(item_id: str) -> ApiError:
    return ApiError(
        grpc.StatusCode.NOT_FOUND,
        "ITEM_NOT_FOUND",
        f"item_id '{item_id[:64]}' is not in the catalogue",
        metadata={"item_id": item_id},
    )


def _problem(request: pb.UpdateItemRequest, fault: Fault) -> ApiError:
    """Return the error of a single update that cannot be made."""
    reason, message = fault
    if reason == pb.RowReject.ITEM_NOT_FOUND:
        return _missing(request.item.item_id)
    path = _FIELDS.get(reason, "item.attributes")
    name = pb.RowReject.Reason.Name(reason) if reason in _REASONS else "INVALID_FIELD"
    return invalid(path, message.removeprefix("item_id "), name)
