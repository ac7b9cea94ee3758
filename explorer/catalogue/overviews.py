"""The overview of a version: read from the bundle, or made once where a bundle was published without one."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Final

from explorer.model import LoadedModel
from ranking.bundle.store import VERSIONS
from ranking.overview.layout import can_lay_out, project
from ranking.overview.overview import Overview

_LOG = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return where overviews are kept that no bundle holds: the reader's cache, never the store."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "shelfwise" / "overviews"


class Overviews:
    """The overview of the newest version that was asked for; thread-safe."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._version = ""
        self._overview: Overview | None = None
        self._thread: threading.Thread | None = None

    def of(self, store: Path, model: LoadedModel) -> tuple[Overview, bool]:
        """Return a version's overview, and whether a better one is being made in the background.

        Until it is there, items lie at their principal components, and no near duplicates are known.

        Args:
            store: the artifact store.
            model: its loaded version.

        """
        items = len(model.bundle.catalogue)
        with self._lock:
            if self._version != model.version:
                folders = (store / VERSIONS / model.version, cache_folder() / model.version)
                known = next((found for f in folders if (found := Overview.load(f, items)) is not None), None)
                self._version = model.version
                self._overview = known or _provisional(model)
                self._thread = None
                if known is None:
                    self._thread = threading.Thread(
                        target=self._make, args=(model,), name="overview", daemon=True
                    )
                    self._thread.start()
            assert self._overview is not None
            return self._overview, self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Return once nothing is being made."""
        if self._thread is not None:
            self._thread.join()

    def _make(self, model: LoadedModel) -> None:
        arrays, catalogue = model.recommender.arrays, model.bundle.catalogue
        made = Overview.of(catalogue.texts, model.bundle.text_vectors, arrays.text_near)
        with self._lock:
            if self._version == model.version:
                self._overview = made
        if not made.is_layout:
            return  # made again when the library is there
        folder = cache_folder() / model.version
        try:
            folder.mkdir(parents=True, exist_ok=True)
            made.save(folder)
        except OSError as error:
            _LOG.warning("the map is not kept for the next start: %s", error)


def _provisional(model: LoadedModel) -> Overview:
    """Return an overview that takes no time."""
    whole = Overview.of([], model.bundle.text_vectors[:0])
    return Overview(project(model.bundle.text_vectors), whole.pairs, whole.cosines, False)


OVERVIEWS: Final = Overviews()
"""Of this process."""
LAYOUT_NEEDED: Final = "pip install 'shelfwise[map]'"


def library_missing() -> bool:
    """Return whether better maps need a library that is not installed."""
    return not can_lay_out()
