"""Options of personalised lists that do not depend on the user."""

from __future__ import annotations

from dataclasses import dataclass

from serving.api import validation
from serving.api.surfaces import Surfaces
from serving.core.list_defaults import overlaid
from shelfwise_client.v1 import recommendations_pb2 as pb


@dataclass(frozen=True)
class ListOptions:
    """The fields that Recommend and BatchRecommend share, validated as far as possible without a model."""

    size: int
    """Items per list or page."""
    filter: str
    excluded: list[str]
    exclude_seen: bool | None
    """None: the model's default."""
    diversity: float | None
    """None: the model's default."""
    novelty: float | None
    """None: the model's default."""
    explain: bool
    surface: str
    fields: frozenset[str] | None
    """Fields of the items in the response; None for all."""
    rules: pb.ListRules

    @classmethod
    def of(
        cls,
        request: pb.RecommendRequest | pb.BatchRecommendRequest,
        size: int,
        surfaces: Surfaces,
        lists: pb.SurfaceDefaults | None = None,
    ) -> ListOptions:
        """Return a request's options, with the defaults of its surface for fields that are not set.

        Args:
            request: the request.
            size: items per list or page.
            surfaces: defaults by surface.
            lists: defaults of the request's arms, which replace those of the surface field by field.

        Raises:
            ApiError: an invalid field.
        """
        surface = validation.surface(request.surface)
        defaults = surfaces.of(surface)
        if lists is not None:
            defaults = overlaid(defaults, lists)
        seen = request if request.HasField("exclude_seen") else defaults
        diverse = request if request.HasField("diversity") else defaults
        novel = request if request.HasField("novelty") else defaults
        return cls(
            size=size,
            filter=request.filter,
            excluded=validation.excluded("exclude_item_ids", request.exclude_item_ids),
            exclude_seen=seen.exclude_seen if seen.HasField("exclude_seen") else None,
            diversity=validation.share("diversity", diverse.diversity)
            if diverse.HasField("diversity")
            else None,
            novelty=validation.share("novelty", novel.novelty) if novel.HasField("novelty") else None,
            explain=request.explain,
            surface=surface,
            fields=validation.read_mask(request.read_mask, pb.RecommendedItem),
            rules=(request if request.HasField("rules") else defaults).rules,
        )
