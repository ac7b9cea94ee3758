"""Typed access to the manifest of a version."""

from __future__ import annotations

from typing import Any


class ManifestView:
    """Mixin with properties of a manifest."""

    manifest: dict[str, Any]
    """Content of manifest.json."""

    @property
    def kinds(self) -> list[str]:
        """Event kinds the model knows, strongest first."""
        return list(self.manifest["kinds"])

    @property
    def exclude_seen(self) -> bool:
        """Whether lists leave out a user's own past items unless the request says otherwise."""
        return bool(self.manifest["exclude_seen"])

    @property
    def data_end(self) -> int:
        """Unix seconds of the last event in the statistics."""
        return int(self.manifest["data_end"])
