import datetime

from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Degradation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEGRADATION_UNSPECIFIED: _ClassVar[Degradation]
    DEGRADATION_NONE: _ClassVar[Degradation]
    DEGRADATION_SESSION_ONLY: _ClassVar[Degradation]
    DEGRADATION_TEXT_ONLY: _ClassVar[Degradation]
    DEGRADATION_POPULARITY: _ClassVar[Degradation]
    DEGRADATION_HISTORY_UNAVAILABLE: _ClassVar[Degradation]
    DEGRADATION_CANDIDATES_UNAVAILABLE: _ClassVar[Degradation]
DEGRADATION_UNSPECIFIED: Degradation
DEGRADATION_NONE: Degradation
DEGRADATION_SESSION_ONLY: Degradation
DEGRADATION_TEXT_ONLY: Degradation
DEGRADATION_POPULARITY: Degradation
DEGRADATION_HISTORY_UNAVAILABLE: Degradation
DEGRADATION_CANDIDATES_UNAVAILABLE: Degradation

class SessionEvent(_message.Message):
    __slots__ = ("item_id", "event", "event_time")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    event: str
    event_time: _timestamp_pb2.Timestamp
    def __init__(self, item_id: _Optional[str] = ..., event: _Optional[str] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SessionContext(_message.Message):
    __slots__ = ("events", "intent", "device", "hour", "session_id")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    INTENT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    HOUR_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[SessionEvent]
    intent: str
    device: str
    hour: int
    session_id: str
    def __init__(self, events: _Optional[_Iterable[_Union[SessionEvent, _Mapping]]] = ..., intent: _Optional[str] = ..., device: _Optional[str] = ..., hour: _Optional[int] = ..., session_id: _Optional[str] = ...) -> None: ...

class AttributeCap(_message.Message):
    __slots__ = ("attribute", "max_items")
    ATTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    attribute: str
    max_items: int
    def __init__(self, attribute: _Optional[str] = ..., max_items: _Optional[int] = ...) -> None: ...

class Pin(_message.Message):
    __slots__ = ("item_id", "position")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    position: int
    def __init__(self, item_id: _Optional[str] = ..., position: _Optional[int] = ...) -> None: ...

class Boost(_message.Message):
    __slots__ = ("filter", "strength")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    filter: str
    strength: float
    def __init__(self, filter: _Optional[str] = ..., strength: _Optional[float] = ...) -> None: ...

class Exploration(_message.Message):
    __slots__ = ("share", "seed")
    SHARE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    share: float
    seed: int
    def __init__(self, share: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class ListRules(_message.Message):
    __slots__ = ("caps", "pins", "boosts", "exploration")
    CAPS_FIELD_NUMBER: _ClassVar[int]
    PINS_FIELD_NUMBER: _ClassVar[int]
    BOOSTS_FIELD_NUMBER: _ClassVar[int]
    EXPLORATION_FIELD_NUMBER: _ClassVar[int]
    caps: _containers.RepeatedCompositeFieldContainer[AttributeCap]
    pins: _containers.RepeatedCompositeFieldContainer[Pin]
    boosts: _containers.RepeatedCompositeFieldContainer[Boost]
    exploration: Exploration
    def __init__(self, caps: _Optional[_Iterable[_Union[AttributeCap, _Mapping]]] = ..., pins: _Optional[_Iterable[_Union[Pin, _Mapping]]] = ..., boosts: _Optional[_Iterable[_Union[Boost, _Mapping]]] = ..., exploration: _Optional[_Union[Exploration, _Mapping]] = ...) -> None: ...

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "session", "page_size", "page_token", "filter", "exclude_item_ids", "exclude_seen", "diversity", "explain", "surface", "read_mask", "request_time", "rules", "novelty")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIME_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    NOVELTY_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    session: SessionContext
    page_size: int
    page_token: str
    filter: str
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    exclude_seen: bool
    diversity: float
    explain: bool
    surface: str
    read_mask: _field_mask_pb2.FieldMask
    request_time: _timestamp_pb2.Timestamp
    rules: ListRules
    novelty: float
    def __init__(self, user_id: _Optional[str] = ..., session: _Optional[_Union[SessionContext, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., exclude_seen: _Optional[bool] = ..., diversity: _Optional[float] = ..., explain: _Optional[bool] = ..., surface: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., request_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rules: _Optional[_Union[ListRules, _Mapping]] = ..., novelty: _Optional[float] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("kind", "because_item_id", "text")
    KIND_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    because_item_id: str
    text: str
    def __init__(self, kind: _Optional[str] = ..., because_item_id: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class RecommendedItem(_message.Message):
    __slots__ = ("item_id", "title", "snippet", "score", "p_click", "p_purchase", "source", "reasons", "list_position", "propensity")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SNIPPET_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    P_CLICK_FIELD_NUMBER: _ClassVar[int]
    P_PURCHASE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    LIST_POSITION_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    snippet: str
    score: float
    p_click: float
    p_purchase: float
    source: str
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    list_position: int
    propensity: float
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., snippet: _Optional[str] = ..., score: _Optional[float] = ..., p_click: _Optional[float] = ..., p_purchase: _Optional[float] = ..., source: _Optional[str] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., list_position: _Optional[int] = ..., propensity: _Optional[float] = ...) -> None: ...

class ExperimentArm(_message.Message):
    __slots__ = ("experiment", "arm", "fallback", "forced")
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    FORCED_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    arm: str
    fallback: bool
    forced: bool
    def __init__(self, experiment: _Optional[str] = ..., arm: _Optional[str] = ..., fallback: _Optional[bool] = ..., forced: _Optional[bool] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("items", "next_page_token", "model_version", "request_id", "degradation", "unknown_item_ids", "attribution_token", "experiments")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DEGRADATION_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENTS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[RecommendedItem]
    next_page_token: str
    model_version: str
    request_id: str
    degradation: Degradation
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[str]
    attribution_token: str
    experiments: _containers.RepeatedCompositeFieldContainer[ExperimentArm]
    def __init__(self, items: _Optional[_Iterable[_Union[RecommendedItem, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., model_version: _Optional[str] = ..., request_id: _Optional[str] = ..., degradation: _Optional[_Union[Degradation, str]] = ..., unknown_item_ids: _Optional[_Iterable[str]] = ..., attribution_token: _Optional[str] = ..., experiments: _Optional[_Iterable[_Union[ExperimentArm, _Mapping]]] = ...) -> None: ...

class UserList(_message.Message):
    __slots__ = ("user_ids",)
    USER_IDS_FIELD_NUMBER: _ClassVar[int]
    user_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, user_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class BatchRecommendRequest(_message.Message):
    __slots__ = ("user_list", "all_users", "list_size", "filter", "exclude_item_ids", "exclude_seen", "diversity", "explain", "surface", "read_mask", "rules", "request_time", "resume_token", "max_users", "novelty")
    USER_LIST_FIELD_NUMBER: _ClassVar[int]
    ALL_USERS_FIELD_NUMBER: _ClassVar[int]
    LIST_SIZE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIME_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MAX_USERS_FIELD_NUMBER: _ClassVar[int]
    NOVELTY_FIELD_NUMBER: _ClassVar[int]
    user_list: UserList
    all_users: bool
    list_size: int
    filter: str
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    exclude_seen: bool
    diversity: float
    explain: bool
    surface: str
    read_mask: _field_mask_pb2.FieldMask
    rules: ListRules
    request_time: _timestamp_pb2.Timestamp
    resume_token: str
    max_users: int
    novelty: float
    def __init__(self, user_list: _Optional[_Union[UserList, _Mapping]] = ..., all_users: _Optional[bool] = ..., list_size: _Optional[int] = ..., filter: _Optional[str] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., exclude_seen: _Optional[bool] = ..., diversity: _Optional[float] = ..., explain: _Optional[bool] = ..., surface: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., rules: _Optional[_Union[ListRules, _Mapping]] = ..., request_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., resume_token: _Optional[str] = ..., max_users: _Optional[int] = ..., novelty: _Optional[float] = ...) -> None: ...

class UserError(_message.Message):
    __slots__ = ("reason", "message")
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class BatchRecommendResponse(_message.Message):
    __slots__ = ("user_id", "items", "degradation", "error", "attribution_token", "resume_token", "model_version", "request_id", "experiments")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    DEGRADATION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENTS_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    items: _containers.RepeatedCompositeFieldContainer[RecommendedItem]
    degradation: Degradation
    error: UserError
    attribution_token: str
    resume_token: str
    model_version: str
    request_id: str
    experiments: _containers.RepeatedCompositeFieldContainer[ExperimentArm]
    def __init__(self, user_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[RecommendedItem, _Mapping]]] = ..., degradation: _Optional[_Union[Degradation, str]] = ..., error: _Optional[_Union[UserError, _Mapping]] = ..., attribution_token: _Optional[str] = ..., resume_token: _Optional[str] = ..., model_version: _Optional[str] = ..., request_id: _Optional[str] = ..., experiments: _Optional[_Iterable[_Union[ExperimentArm, _Mapping]]] = ...) -> None: ...

class SimilarItemsRequest(_message.Message):
    __slots__ = ("item_id", "text", "page_size", "page_token", "filter", "exclude_item_ids", "read_mask", "surface")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    text: str
    page_size: int
    page_token: str
    filter: str
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    read_mask: _field_mask_pb2.FieldMask
    surface: str
    def __init__(self, item_id: _Optional[str] = ..., text: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., surface: _Optional[str] = ...) -> None: ...

class SimilarItem(_message.Message):
    __slots__ = ("item_id", "title", "snippet", "similarity", "list_position")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SNIPPET_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    LIST_POSITION_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    title: str
    snippet: str
    similarity: float
    list_position: int
    def __init__(self, item_id: _Optional[str] = ..., title: _Optional[str] = ..., snippet: _Optional[str] = ..., similarity: _Optional[float] = ..., list_position: _Optional[int] = ...) -> None: ...

class SimilarItemsResponse(_message.Message):
    __slots__ = ("items", "next_page_token", "model_version", "request_id", "attribution_token")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[SimilarItem]
    next_page_token: str
    model_version: str
    request_id: str
    attribution_token: str
    def __init__(self, items: _Optional[_Iterable[_Union[SimilarItem, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., model_version: _Optional[str] = ..., request_id: _Optional[str] = ..., attribution_token: _Optional[str] = ...) -> None: ...

class SearchItemsRequest(_message.Message):
    __slots__ = ("query", "user_id", "session", "page_size", "page_token", "filter", "read_mask", "exclude_item_ids", "explain", "surface")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    query: str
    user_id: str
    session: SessionContext
    page_size: int
    page_token: str
    filter: str
    read_mask: _field_mask_pb2.FieldMask
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    explain: bool
    surface: str
    def __init__(self, query: _Optional[str] = ..., user_id: _Optional[str] = ..., session: _Optional[_Union[SessionContext, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., read_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., explain: _Optional[bool] = ..., surface: _Optional[str] = ...) -> None: ...

class SearchItemsResponse(_message.Message):
    __slots__ = ("items", "next_page_token", "model_version", "request_id", "degradation", "unknown_item_ids", "attribution_token", "experiments")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DEGRADATION_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENTS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[RecommendedItem]
    next_page_token: str
    model_version: str
    request_id: str
    degradation: Degradation
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[str]
    attribution_token: str
    experiments: _containers.RepeatedCompositeFieldContainer[ExperimentArm]
    def __init__(self, items: _Optional[_Iterable[_Union[RecommendedItem, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., model_version: _Optional[str] = ..., request_id: _Optional[str] = ..., degradation: _Optional[_Union[Degradation, str]] = ..., unknown_item_ids: _Optional[_Iterable[str]] = ..., attribution_token: _Optional[str] = ..., experiments: _Optional[_Iterable[_Union[ExperimentArm, _Mapping]]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("user_id", "item_id", "event", "event_time", "event_id", "attribution_token", "list_position")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LIST_POSITION_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    item_id: str
    event: str
    event_time: _timestamp_pb2.Timestamp
    event_id: str
    attribution_token: str
    list_position: int
    def __init__(self, user_id: _Optional[str] = ..., item_id: _Optional[str] = ..., event: _Optional[str] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., event_id: _Optional[str] = ..., attribution_token: _Optional[str] = ..., list_position: _Optional[int] = ...) -> None: ...

class RecordEventsRequest(_message.Message):
    __slots__ = ("events", "validate_only")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    validate_only: bool
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class RowReject(_message.Message):
    __slots__ = ("index", "reason", "message")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[RowReject.Reason]
        USER_ID: _ClassVar[RowReject.Reason]
        ITEM_ID: _ClassVar[RowReject.Reason]
        EVENT_KIND: _ClassVar[RowReject.Reason]
        EVENT_TIME: _ClassVar[RowReject.Reason]
        EVENT_ID: _ClassVar[RowReject.Reason]
        USER_DELETED: _ClassVar[RowReject.Reason]
        ITEM_ATTRIBUTES: _ClassVar[RowReject.Reason]
        CATALOGUE_FULL: _ClassVar[RowReject.Reason]
        ATTRIBUTION_TOKEN: _ClassVar[RowReject.Reason]
        LIST_POSITION: _ClassVar[RowReject.Reason]
        ITEM_TEXT: _ClassVar[RowReject.Reason]
        ITEM_NOT_FOUND: _ClassVar[RowReject.Reason]
        UPDATE_MASK: _ClassVar[RowReject.Reason]
    REASON_UNSPECIFIED: RowReject.Reason
    USER_ID: RowReject.Reason
    ITEM_ID: RowReject.Reason
    EVENT_KIND: RowReject.Reason
    EVENT_TIME: RowReject.Reason
    EVENT_ID: RowReject.Reason
    USER_DELETED: RowReject.Reason
    ITEM_ATTRIBUTES: RowReject.Reason
    CATALOGUE_FULL: RowReject.Reason
    ATTRIBUTION_TOKEN: RowReject.Reason
    LIST_POSITION: RowReject.Reason
    ITEM_TEXT: RowReject.Reason
    ITEM_NOT_FOUND: RowReject.Reason
    UPDATE_MASK: RowReject.Reason
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    index: int
    reason: RowReject.Reason
    message: str
    def __init__(self, index: _Optional[int] = ..., reason: _Optional[_Union[RowReject.Reason, str]] = ..., message: _Optional[str] = ...) -> None: ...

class RecordEventsResponse(_message.Message):
    __slots__ = ("new_count", "duplicate_count", "rejects", "request_id", "unknown_event_kinds")
    NEW_COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    REJECTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_EVENT_KINDS_FIELD_NUMBER: _ClassVar[int]
    new_count: int
    duplicate_count: int
    rejects: _containers.RepeatedCompositeFieldContainer[RowReject]
    request_id: str
    unknown_event_kinds: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, new_count: _Optional[int] = ..., duplicate_count: _Optional[int] = ..., rejects: _Optional[_Iterable[_Union[RowReject, _Mapping]]] = ..., request_id: _Optional[str] = ..., unknown_event_kinds: _Optional[_Iterable[str]] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("item_id", "attributes")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    attributes: _struct_pb2.Struct
    def __init__(self, item_id: _Optional[str] = ..., attributes: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class UpsertItemsRequest(_message.Message):
    __slots__ = ("items", "validate_only")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    validate_only: bool
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class UpsertItemsResponse(_message.Message):
    __slots__ = ("upserted_count", "rejects", "request_id")
    UPSERTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REJECTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    upserted_count: int
    rejects: _containers.RepeatedCompositeFieldContainer[RowReject]
    request_id: str
    def __init__(self, upserted_count: _Optional[int] = ..., rejects: _Optional[_Iterable[_Union[RowReject, _Mapping]]] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetItemRequest(_message.Message):
    __slots__ = ("item_id",)
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    def __init__(self, item_id: _Optional[str] = ...) -> None: ...

class GetItemResponse(_message.Message):
    __slots__ = ("item", "request_id")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    item: Item
    request_id: str
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class ListItemsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "filter")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    filter: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ...) -> None: ...

class ListItemsResponse(_message.Message):
    __slots__ = ("items", "next_page_token", "request_id")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    next_page_token: str
    request_id: str
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class UpdateItemRequest(_message.Message):
    __slots__ = ("item", "update_mask", "allow_missing", "validate_only")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    item: Item
    update_mask: _field_mask_pb2.FieldMask
    allow_missing: bool
    validate_only: bool
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., allow_missing: _Optional[bool] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class UpdateItemResponse(_message.Message):
    __slots__ = ("item", "request_id")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    item: Item
    request_id: str
    def __init__(self, item: _Optional[_Union[Item, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class BatchUpdateItemsRequest(_message.Message):
    __slots__ = ("requests", "validate_only")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[UpdateItemRequest]
    validate_only: bool
    def __init__(self, requests: _Optional[_Iterable[_Union[UpdateItemRequest, _Mapping]]] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class BatchUpdateItemsResponse(_message.Message):
    __slots__ = ("updated_count", "rejects", "request_id")
    UPDATED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REJECTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    updated_count: int
    rejects: _containers.RepeatedCompositeFieldContainer[RowReject]
    request_id: str
    def __init__(self, updated_count: _Optional[int] = ..., rejects: _Optional[_Iterable[_Union[RowReject, _Mapping]]] = ..., request_id: _Optional[str] = ...) -> None: ...

class AttributeDeclaration(_message.Message):
    __slots__ = ("name", "type")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: Attribute.Type
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[Attribute.Type, str]] = ...) -> None: ...

class DeclareAttributesRequest(_message.Message):
    __slots__ = ("attributes", "validate_only")
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    attributes: _containers.RepeatedCompositeFieldContainer[AttributeDeclaration]
    validate_only: bool
    def __init__(self, attributes: _Optional[_Iterable[_Union[AttributeDeclaration, _Mapping]]] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class DeclareAttributesResponse(_message.Message):
    __slots__ = ("declared_count", "request_id")
    DECLARED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    declared_count: int
    request_id: str
    def __init__(self, declared_count: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteItemsRequest(_message.Message):
    __slots__ = ("item_ids", "validate_only")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    validate_only: bool
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class DeleteItemsResponse(_message.Message):
    __slots__ = ("deleted_count", "request_id", "unknown_item_ids")
    DELETED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    deleted_count: int
    request_id: str
    unknown_item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, deleted_count: _Optional[int] = ..., request_id: _Optional[str] = ..., unknown_item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteUserRequest(_message.Message):
    __slots__ = ("user_id", "validate_only")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    validate_only: bool
    def __init__(self, user_id: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class DeleteUserResponse(_message.Message):
    __slots__ = ("deleted_event_count", "request_id")
    DELETED_EVENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    deleted_event_count: int
    request_id: str
    def __init__(self, deleted_event_count: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class ExportUserRequest(_message.Message):
    __slots__ = ("user_id",)
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    def __init__(self, user_id: _Optional[str] = ...) -> None: ...

class StoredEvent(_message.Message):
    __slots__ = ("item_id", "event", "event_time", "event_id", "imported", "request_id", "list_position", "surface", "model_version", "device", "hour", "propensity", "experiments")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    LIST_POSITION_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    HOUR_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENTS_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    event: str
    event_time: _timestamp_pb2.Timestamp
    event_id: str
    imported: bool
    request_id: str
    list_position: int
    surface: str
    model_version: str
    device: str
    hour: int
    propensity: float
    experiments: str
    def __init__(self, item_id: _Optional[str] = ..., event: _Optional[str] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., event_id: _Optional[str] = ..., imported: _Optional[bool] = ..., request_id: _Optional[str] = ..., list_position: _Optional[int] = ..., surface: _Optional[str] = ..., model_version: _Optional[str] = ..., device: _Optional[str] = ..., hour: _Optional[int] = ..., propensity: _Optional[float] = ..., experiments: _Optional[str] = ...) -> None: ...

class ExportUserResponse(_message.Message):
    __slots__ = ("events", "request_id")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[StoredEvent]
    request_id: str
    def __init__(self, events: _Optional[_Iterable[_Union[StoredEvent, _Mapping]]] = ..., request_id: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SurfaceDefaults(_message.Message):
    __slots__ = ("exclude_seen", "diversity", "rules", "novelty")
    EXCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    NOVELTY_FIELD_NUMBER: _ClassVar[int]
    exclude_seen: bool
    diversity: float
    rules: ListRules
    novelty: float
    def __init__(self, exclude_seen: _Optional[bool] = ..., diversity: _Optional[float] = ..., rules: _Optional[_Union[ListRules, _Mapping]] = ..., novelty: _Optional[float] = ...) -> None: ...

class Attribute(_message.Message):
    __slots__ = ("name", "type", "declared")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TYPE_UNSPECIFIED: _ClassVar[Attribute.Type]
        STRING: _ClassVar[Attribute.Type]
        NUMBER: _ClassVar[Attribute.Type]
        BOOL: _ClassVar[Attribute.Type]
        TIME: _ClassVar[Attribute.Type]
        LIST: _ClassVar[Attribute.Type]
    TYPE_UNSPECIFIED: Attribute.Type
    STRING: Attribute.Type
    NUMBER: Attribute.Type
    BOOL: Attribute.Type
    TIME: Attribute.Type
    LIST: Attribute.Type
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DECLARED_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: Attribute.Type
    declared: bool
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[Attribute.Type, str]] = ..., declared: _Optional[bool] = ...) -> None: ...

class FailedReload(_message.Message):
    __slots__ = ("model_version", "reason", "time")
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    reason: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, model_version: _Optional[str] = ..., reason: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ArmStatus(_message.Message):
    __slots__ = ("arm", "share", "model_version", "failure")
    ARM_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    arm: str
    share: float
    model_version: str
    failure: str
    def __init__(self, arm: _Optional[str] = ..., share: _Optional[float] = ..., model_version: _Optional[str] = ..., failure: _Optional[str] = ...) -> None: ...

class ExperimentStatus(_message.Message):
    __slots__ = ("experiment", "unit", "arms")
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    unit: str
    arms: _containers.RepeatedCompositeFieldContainer[ArmStatus]
    def __init__(self, experiment: _Optional[str] = ..., unit: _Optional[str] = ..., arms: _Optional[_Iterable[_Union[ArmStatus, _Mapping]]] = ...) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("model_version", "model_data_time", "model_load_time", "item_count", "text_dim", "event_kinds", "attributes", "user_count", "event_count", "last_record_time", "server_version", "uptime", "max_page_size", "max_event_batch", "max_future", "queue_length", "request_id", "changed_item_count", "deleted_item_count", "failed_reload", "surfaces", "device", "experiments", "experiments_failure", "loading_version")
    class SurfacesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: SurfaceDefaults
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[SurfaceDefaults, _Mapping]] = ...) -> None: ...
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_DATA_TIME_FIELD_NUMBER: _ClassVar[int]
    MODEL_LOAD_TIME_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    TEXT_DIM_FIELD_NUMBER: _ClassVar[int]
    EVENT_KINDS_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    USER_COUNT_FIELD_NUMBER: _ClassVar[int]
    EVENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_RECORD_TIME_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_FIELD_NUMBER: _ClassVar[int]
    MAX_PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_EVENT_BATCH_FIELD_NUMBER: _ClassVar[int]
    MAX_FUTURE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CHANGED_ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELETED_ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILED_RELOAD_FIELD_NUMBER: _ClassVar[int]
    SURFACES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENTS_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENTS_FAILURE_FIELD_NUMBER: _ClassVar[int]
    LOADING_VERSION_FIELD_NUMBER: _ClassVar[int]
    model_version: str
    model_data_time: _timestamp_pb2.Timestamp
    model_load_time: _timestamp_pb2.Timestamp
    item_count: int
    text_dim: int
    event_kinds: _containers.RepeatedScalarFieldContainer[str]
    attributes: _containers.RepeatedCompositeFieldContainer[Attribute]
    user_count: int
    event_count: int
    last_record_time: _timestamp_pb2.Timestamp
    server_version: str
    uptime: _duration_pb2.Duration
    max_page_size: int
    max_event_batch: int
    max_future: _duration_pb2.Duration
    queue_length: int
    request_id: str
    changed_item_count: int
    deleted_item_count: int
    failed_reload: FailedReload
    surfaces: _containers.MessageMap[str, SurfaceDefaults]
    device: str
    experiments: _containers.RepeatedCompositeFieldContainer[ExperimentStatus]
    experiments_failure: str
    loading_version: str
    def __init__(self, model_version: _Optional[str] = ..., model_data_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., model_load_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., item_count: _Optional[int] = ..., text_dim: _Optional[int] = ..., event_kinds: _Optional[_Iterable[str]] = ..., attributes: _Optional[_Iterable[_Union[Attribute, _Mapping]]] = ..., user_count: _Optional[int] = ..., event_count: _Optional[int] = ..., last_record_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., server_version: _Optional[str] = ..., uptime: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_page_size: _Optional[int] = ..., max_event_batch: _Optional[int] = ..., max_future: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., queue_length: _Optional[int] = ..., request_id: _Optional[str] = ..., changed_item_count: _Optional[int] = ..., deleted_item_count: _Optional[int] = ..., failed_reload: _Optional[_Union[FailedReload, _Mapping]] = ..., surfaces: _Optional[_Mapping[str, SurfaceDefaults]] = ..., device: _Optional[str] = ..., experiments: _Optional[_Iterable[_Union[ExperimentStatus, _Mapping]]] = ..., experiments_failure: _Optional[str] = ..., loading_version: _Optional[str] = ...) -> None: ...
