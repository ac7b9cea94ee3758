"""What the clients return where a message alone would mislead or be awkward to read.

Optional numbers are None instead of 0, enum values have names, times are datetimes. All other calls
return the response message of the service.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from shelfwise_client.v1 import recommendations_pb2 as pb


@dataclass(frozen=True)
class Reason:
    """Why an item is in the list."""

    kind: str
    because_item_id: str
    text: str


@dataclass(frozen=True)
class RecommendedItem:
    """One item of a list."""

    item_id: str
    title: str
    snippet: str
    score: float
    p_click: float | None
    p_purchase: float | None
    source: str
    reasons: tuple[Reason, ...]
    list_position: int
    """From 1, over all pages."""

    @classmethod
    def of(cls, item: pb.RecommendedItem) -> RecommendedItem:
        """Read a message."""
        return cls(
            item_id=item.item_id,
            title=item.title,
            snippet=item.snippet,
            score=item.score,
            p_click=item.p_click if item.HasField("p_click") else None,
            p_purchase=item.p_purchase if item.HasField("p_purchase") else None,
            source=item.source,
            reasons=tuple(Reason(r.kind, r.because_item_id, r.text) for r in item.reasons),
            list_position=item.list_position,
        )


@dataclass(frozen=True)
class ExperimentArm:
    """The arm of an experiment that a list belongs to."""

    experiment: str
    arm: str
    fallback: bool
    """Whether the list was made without the arm, because its model could not be used just now."""
    forced: bool
    """Whether a tester chose the arm; the list's events are then no part of the experiment."""

    @classmethod
    def of(cls, message: pb.ExperimentArm) -> ExperimentArm:
        """Read a message."""
        return cls(message.experiment, message.arm, message.fallback, message.forced)


@dataclass(frozen=True)
class RecommendResult:
    """One page of a personalised list."""

    items: tuple[RecommendedItem, ...]
    next_page_token: str
    model_version: str
    request_id: str
    degradation: str
    """`none`, `session_only`, `text_only`, `popularity` or `history_unavailable`."""
    unknown_item_ids: tuple[str, ...]
    attribution_token: str
    """Sent back with the events that shoppers cause on this list."""
    experiments: tuple[ExperimentArm, ...] = ()
    """The experiments that the list is part of."""

    @classmethod
    def of(cls, response: pb.RecommendResponse | pb.SearchItemsResponse) -> Self:
        """Read a response."""
        items = tuple(RecommendedItem.of(item) for item in response.items)
        return cls(
            items,
            response.next_page_token,
            response.model_version,
            response.request_id,
            _degradation_name(response.degradation),
            tuple(response.unknown_item_ids),
            response.attribution_token,
            tuple(ExperimentArm.of(arm) for arm in response.experiments),
        )


@dataclass(frozen=True)
class UserListError:
    """Why there is no list for a user."""

    reason: str
    message: str


@dataclass(frozen=True)
class UserListResult:
    """One user's list of a batch."""

    user_id: str
    items: tuple[RecommendedItem, ...]
    degradation: str
    """As of RecommendResult; empty with an error."""
    error: UserListError | None
    attribution_token: str
    resume_token: str
    """Resumes the stream after this user, in `BatchQuery.resume_token`."""
    model_version: str
    request_id: str
    experiments: tuple[ExperimentArm, ...] = ()
    """As of RecommendResult."""

    @classmethod
    def of(cls, response: pb.BatchRecommendResponse) -> UserListResult:
        """Read a message of the stream."""
        failed = response.HasField("error")
        return cls(
            response.user_id,
            tuple(RecommendedItem.of(item) for item in response.items),
            "" if failed else _degradation_name(response.degradation),
            UserListError(response.error.reason, response.error.message) if failed else None,
            response.attribution_token,
            response.resume_token,
            response.model_version,
            response.request_id,
            tuple(ExperimentArm.of(arm) for arm in response.experiments),
        )


@dataclass(frozen=True)
class SearchResult(RecommendResult):
    """One page of search results; `degradation` is `text_only` where the words alone decided the order."""


@dataclass(frozen=True)
class Reject:
    """A row that was not stored."""

    index: int
    reason: str
    """For programs, for example `ITEM_ID`."""
    message: str


@dataclass(frozen=True)
class RecordResult:
    """Outcome of RecordEvents."""

    new_count: int
    duplicate_count: int
    rejects: tuple[Reject, ...]
    request_id: str
    unknown_event_kinds: tuple[str, ...]
    """Kinds that were stored and that the model does not know, each once."""

    @classmethod
    def of(cls, response: pb.RecordEventsResponse) -> RecordResult:
        """Read a response."""
        return cls(
            response.new_count,
            response.duplicate_count,
            read_rejects(response.rejects),
            response.request_id,
            tuple(response.unknown_event_kinds),
        )


@dataclass(frozen=True)
class FailedReload:
    """A published version that the server could not load."""

    model_version: str
    reason: str
    time: datetime


@dataclass(frozen=True)
class Status:
    """State of the server and its model."""

    model_version: str
    model_data_time: datetime
    item_count: int
    changed_item_count: int
    deleted_item_count: int
    event_kinds: tuple[str, ...]
    attributes: dict[str, str]
    """Filter attribute -> type in lower case."""
    declared_attributes: tuple[str, ...]
    """Those of `attributes` that DeclareAttributes added."""
    user_count: int
    event_count: int
    max_page_size: int
    max_event_batch: int
    server_version: str
    failed_reload: FailedReload | None
    """Set while the store's current version is not the one that is served."""
    device: str
    """Where the model's arithmetic runs, for example `cpu` or `cuda:0 NVIDIA H100`."""
    loading_version: str = ""
    """Version that is being loaded, or whose histories are being imported; empty if none."""

    @classmethod
    def of(cls, response: pb.GetStatusResponse) -> Status:
        """Read a response."""
        failed = response.failed_reload
        return cls(
            model_version=response.model_version,
            model_data_time=response.model_data_time.ToDatetime(tzinfo=UTC),
            item_count=response.item_count,
            changed_item_count=response.changed_item_count,
            deleted_item_count=response.deleted_item_count,
            event_kinds=tuple(response.event_kinds),
            attributes={a.name: pb.Attribute.Type.Name(a.type).lower() for a in response.attributes},
            declared_attributes=tuple(a.name for a in response.attributes if a.declared),
            user_count=response.user_count,
            event_count=response.event_count,
            max_page_size=response.max_page_size,
            max_event_batch=response.max_event_batch,
            server_version=response.server_version,
            failed_reload=FailedReload(
                failed.model_version, failed.reason, failed.time.ToDatetime(tzinfo=UTC)
            )
            if response.HasField("failed_reload")
            else None,
            device=response.device,
            loading_version=response.loading_version,
        )


def read_rejects(rows: Iterable[pb.RowReject]) -> tuple[Reject, ...]:
    """Read rejected rows; servers newer than this client may send reasons that it does not know."""
    known = pb.RowReject.Reason.values()
    return tuple(
        Reject(
            r.index,
            pb.RowReject.Reason.Name(r.reason) if r.reason in known else f"REASON_{r.reason}",
            r.message,
        )
        for r in rows
    )


def _degradation_name(value: pb.Degradation) -> str:
    """Return the short name; servers newer than this client may send numbers it does not know."""
    if value not in pb.Degradation.values():
        return f"unknown_{int(value)}"
    return pb.Degradation.Name(value).removeprefix("DEGRADATION_").lower()
