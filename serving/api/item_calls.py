"""The RPCs on items: each validates its request, stores the changes, and waits until lists reflect them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc

from conf.serving import ServeConfig
from ranking.catalogue.item_values import sendable
from ranking.catalogue.live_catalogue import ItemChange
from serving.api import page_tokens, tokens, validation
from serving.api.attribute_rows import check_declarations, type_conflict
from serving.api.filter_masks import RowSelector
from serving.api.item_updates import Update, apply_updates, read_update, values_of
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
"""The field of UpdateItemRequest at fault, by reject reason; `item.attributes` for all others."""
_REASONS: Final = (pb.RowReject.ITEM_TEXT, pb.RowReject.CATALOGUE_FULL)
"""Reject reasons that are reasons of errors, too."""


class ItemCalls:
    """Handlers of the RPCs that read and change items; use them inside the event loop."""

    def __init__(
        self,
        host: ModelHost,
        changes: ItemChanges,
        context_loader: UserContextLoader,
        selector: RowSelector,
        config: ServeConfig,
    ) -> None:
        """Wire the parts; see `serving.api.service.RecommendationService`."""
        self._host = host
        self._changes = changes
        self._context_loader = context_loader
        self._selector = selector
        self._config = config

    async def get(self, request: pb.GetItemRequest) -> pb.GetItemResponse:
        """Return an item as it is served."""
        if fault := id_fault(request.item_id):
            raise invalid("item_id", fault.removeprefix("item_id "))
        context = await self._context_loader.load("")
        catalogue = self._host.served.model.catalogue
        row = catalogue.row(request.item_id)
        if row is None or catalogue.is_hidden(row) or request.item_id in context.deleted_items:
            raise _not_found(request.item_id)
        item = item_message(request.item_id, catalogue.contents([row])[0])
        return pb.GetItemResponse(item=item, request_id=CALL.get().request_id)

    async def list(self, request: pb.ListItemsRequest) -> pb.ListItemsResponse:
        """Return a page of the items, in order of their ids."""
        size = validation.page_size(request.page_size, self._config.max_page_size)
        request_hash = tokens.fingerprint(request)
        after = page_tokens.decode_cursor(page_tokens.ITEM_CURSOR, request.page_token, request_hash)
        context = await self._context_loader.load("")
        async with self._host.lease() as served:
            allowed = await self._selector.mask(served, request.filter)
            rows = await self._selector.after(served, after, size + 1, allowed)
        catalogue, response = served.model.catalogue, pb.ListItemsResponse(request_id=CALL.get().request_id)
        taken, bytes_left = 0, self._config.max_message_bytes // 2
        for row, values in zip(rows[:size], catalogue.contents(rows[:size]), strict=True):
            item = item_message(catalogue.ids[row], values)
            bytes_left -= item.ByteSize()
            if taken and bytes_left < 0:
                break
            taken += 1
            if item.item_id not in context.deleted_items:
                response.items.append(item)
        if len(rows) > taken:
            response.next_page_token = page_tokens.encode_cursor(
                page_tokens.ITEM_CURSOR, request_hash, catalogue.ids[rows[taken - 1]]
            )
        annotate(items=len(response.items))
        return response

    async def upsert(self, request: pb.UpsertItemsRequest) -> pb.UpsertItemsResponse:
        """Add or replace items; lists reflect them before this returns."""
        call, served = CALL.get(), self._host.served
        checked = check_items(request.items, served.model.catalogue, served.template, self._capacity(served))
        if any(row.reason == pb.RowReject.ITEM_ATTRIBUTES for row in checked.rejects):
            await self._context_loader.load("")  # another server may have declared the attribute a moment ago
            served = self._host.served
            checked = check_items(
                request.items, served.model.catalogue, served.template, self._capacity(served)
            )
        mark_stage("validate")
        if checked.changes and not request.validate_only:
            with stage("store_items"):
                revision = await self._changes.store(checked.changes, call.deadline)
            await self._wait_until_visible(revision)
        if not request.validate_only:
            annotate(upserted_items=len(checked.changes), rejected_items=len(checked.rejects))
        return pb.UpsertItemsResponse(
            upserted_count=len(checked.changes), rejects=checked.rejects, request_id=call.request_id
        )

    async def delete(self, request: pb.DeleteItemsRequest) -> pb.DeleteItemsResponse:
        """Delete items; no response after this one contains them."""
        call, catalogue = CALL.get(), self._host.served.model.catalogue
        item_ids = check_deletes(request.item_ids)
        rows = [catalogue.row(item_id) for item_id in item_ids]
        missing = [row is None or catalogue.is_hidden(row) for row in rows]
        if any(missing):
            await self._context_loader.load("")  # another server may have added the item a moment ago
            catalogue = self._host.served.model.catalogue
            rows = [catalogue.row(item_id) for item_id in item_ids]
            missing = [row is None or catalogue.is_hidden(row) for row in rows]
        mark_stage("validate")
        if not request.validate_only:
            with stage("store_items"):
                changes = [ItemChange(item_id, None) for item_id in item_ids]
                revision = await self._changes.store(changes, call.deadline)
            await self._wait_until_visible(revision)
        unknown = [item_id for item_id, absent in zip(item_ids, missing, strict=True) if absent]
        if not request.validate_only:
            annotate(deleted_items=len(item_ids) - len(unknown))
        return pb.DeleteItemsResponse(
            deleted_count=len(item_ids) - len(unknown), unknown_item_ids=unknown, request_id=call.request_id
        )

    async def update(self, request: pb.UpdateItemRequest) -> pb.UpdateItemResponse:
        """Update attributes of an item, and return the updated item."""
        applied, faults = await self._update([request], request.validate_only)
        if not request.validate_only:
            annotate(updated_items=len(applied), rejected_items=len(faults))
        if faults:
            raise _update_error(request, faults[0])
        values = values_of(applied[0], self._host.served.model.catalogue)
        item = item_message(request.item.item_id, values)
        return pb.UpdateItemResponse(item=item, request_id=CALL.get().request_id)

    async def batch_update(self, request: pb.BatchUpdateItemsRequest) -> pb.BatchUpdateItemsResponse:
        """Update attributes of many items."""
        if not request.requests:
            raise invalid("requests", "is empty; send at least one")
        if len(request.requests) > MAX_ITEMS:
            raise invalid("requests", f"{len(request.requests):,} rows; send at most {MAX_ITEMS:,} per call")
        applied, faults = await self._update(request.requests, request.validate_only)
        if not request.validate_only:
            annotate(updated_items=len(applied), rejected_items=len(faults))
        return pb.BatchUpdateItemsResponse(
            updated_count=len(applied),
            rejects=[reject(index, fault) for index, fault in sorted(faults.items())],
            request_id=CALL.get().request_id,
        )

    async def declare(self, request: pb.DeclareAttributesRequest) -> pb.DeclareAttributesResponse:
        """Declare attributes that items may have."""
        call, declared = CALL.get(), await self._changes.declared()
        declarations = check_declarations(request.attributes, self._host.served.model.catalogue, declared)
        mark_stage("validate")
        if not request.validate_only:
            with stage("store_items"):
                done = await self._changes.declare(declarations, call.deadline)
            for name, kind in done.conflicts.items():  # declared through another server a moment ago
                raise type_conflict([row.name for row in request.attributes].index(name), name, kind)
            await self._wait_until_visible(done.revision)
        new = sum(declaration.name not in declared for declaration in declarations)
        return pb.DeclareAttributesResponse(declared_count=new, request_id=call.request_id)

    async def _update(
        self, rows: Sequence[pb.UpdateItemRequest], validate_only: bool
    ) -> tuple[dict[int, ItemChange], dict[int, Fault]]:
        """Apply updates; return the updated items, and why updates were rejected, by position."""
        await self._context_loader.load("")  # another server may have declared an attribute a moment ago
        deadline, served = CALL.get().deadline, self._host.served
        catalogue = served.model.catalogue
        read = [read_update(row, catalogue) for row in rows]
        pending = {at: update for at, update in enumerate(read) if isinstance(update, Update)}
        faults: dict[int, Fault] = {at: f for at, f in enumerate(read) if not isinstance(f, Update)}
        mark_stage("validate")
        applied: dict[int, ItemChange] = {}
        revision = 0
        while pending:
            with stage("store_items"):
                ids = list(dict.fromkeys(update.item_id for update in pending.values()))
                found = dict(zip(ids, await self._changes.contents(ids, deadline), strict=True))
                stored = {item_id: content for item_id, (_, content) in found.items()}
                result = apply_updates(pending, stored, catalogue, served.template, self._capacity(served))
                retry: set[str] = set()
                if result.changes and not validate_only:
                    changes = list(result.changes.values())
                    known = [found[change.item_id][0] for change in changes]
                    replaced = await self._changes.replace(changes, known, deadline)
                    retry = {changes[position].item_id for position in replaced.conflicts}
                    revision = max(revision, replaced.revision)
            faults.update((at, f) for at, f in result.faults.items() if pending[at].item_id not in retry)
            applied.update((at, c) for at, c in result.applied.items() if c.item_id not in retry)
            pending = {at: update for at, update in pending.items() if update.item_id in retry}
        if revision:
            await self._wait_until_visible(revision)
        return applied, faults

    async def _wait_until_visible(self, revision: int) -> None:
        """Wait until lists reflect a change: here, and through other servers by acknowledging it."""
        with stage("apply"):
            await self._host.wait_for_revision(revision, CALL.get().deadline)
            await self._changes.acknowledge(revision)

    def _capacity(self, served: Served) -> int:
        """Return how many items may still be added."""
        catalogue = served.model.catalogue
        return self._config.max_live_items - (len(catalogue) - len(catalogue.base))


def item_message(item_id: str, values: dict[str, object]) -> pb.Item:
    """Return the message of an item; values are typed as the catalogue's columns."""
    item = pb.Item(item_id=item_id)
    attributes: dict[str, Any] = sendable(values)
    item.attributes.update(attributes)
    return item


def _not_found(item_id: str) -> ApiError:
    return ApiError(
        grpc.StatusCode.NOT_FOUND,
        "ITEM_NOT_FOUND",
        f"item_id '{item_id[:64]}' is not in the catalogue",
        metadata={"item_id": item_id},
    )


def _update_error(request: pb.UpdateItemRequest, fault: Fault) -> ApiError:
    """Return the error of a single rejected update."""
    reason, message = fault
    if reason == pb.RowReject.ITEM_NOT_FOUND:
        return _not_found(request.item.item_id)
    path = _FIELDS.get(reason, "item.attributes")
    name = pb.RowReject.Reason.Name(reason) if reason in _REASONS else "INVALID_FIELD"
    return invalid(path, message.removeprefix("item_id "), name)
