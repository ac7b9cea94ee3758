"""Loads the current bundle in a thread of its own, so that pages open at once, and follows the store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from conf.errors import InputError
from explorer.problems import LoadingError, PageError

if TYPE_CHECKING:
    from explorer.model import LoadedModel

_LOG = logging.getLogger(__name__)
PATIENCE: Final = 0.3
"""Seconds that a page waits for a bundle before it says that it is being loaded."""


@dataclass(frozen=True)
class LoadingState:
    """Where the loader stands, for the line at the head of every page."""

    loaded: str
    """Version that pages show; empty while there is none."""
    loading: str
    """Version that is being loaded; empty while there is none."""
    failed: str
    """Why the newest version could not be loaded; empty where it could."""


class BundleLoader:
    """Holds the newest loaded version of a store; loading starts with the first question for it."""

    def __init__(
        self,
        current_version: Callable[[], str],
        load: Callable[[str], LoadedModel],
        patience: float = PATIENCE,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            current_version: returns the name of the store's current version.
            load: loads a version.
            patience: seconds that `current` waits for the first version.

        """
        self._current_version = current_version
        self._load = load
        self._patience = patience
        self._lock = threading.Lock()
        self._model: LoadedModel | None = None
        self._loading = ""
        self._failed: tuple[str, str] | None = None
        """Version and reason."""
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Load the current version in the background, unless it is loaded or was found damaged."""
        try:
            version = self._current_version()
        except InputError as error:
            with self._lock:
                self._failed = ("", str(error))
            return
        with self._lock:
            known = self._model is not None and self._model.version == version
            if known:
                self._failed = None  # a version that could not be loaded is no longer the current one
            if known or self._loading or (self._failed is not None and self._failed[0] == version):
                return
            self._loading = version
            self._thread = threading.Thread(target=self._run, args=(version,), name="bundle", daemon=True)
            self._thread.start()

    def state(self) -> LoadingState:
        """Return where the loader stands."""
        with self._lock:
            loaded = "" if self._model is None else self._model.version
            return LoadingState(loaded, self._loading, "" if self._failed is None else self._failed[1])

    def current(self) -> LoadedModel:
        """Return the newest loaded version, and look whether the store has a newer one.

        Raises:
            LoadingError: the first one is being loaded.
            PageError: there is none that can be loaded.

        """
        self.start()
        thread = self._thread
        if self._model is None and thread is not None:
            thread.join(self._patience)
        with self._lock:
            if self._model is not None:
                return self._model
            if self._failed is not None and not self._loading:
                raise PageError(500, "The bundle cannot be loaded", self._failed[1])
        raise LoadingError

    def _run(self, version: str) -> None:
        failed: str | None = None
        model: LoadedModel | None = None
        try:
            model = self._load(version)
        except InputError as error:
            failed = str(error)
        except Exception as error:
            _LOG.exception("%s cannot be loaded", version)
            failed = f"{version}: {type(error).__name__}: {error}"
        with self._lock:
            self._loading = ""
            self._model = model or self._model
            self._failed = None if failed is None else (version, failed)


def store_loader(store: Path, device: str, threads: int) -> BundleLoader:
    """Return a loader of an artifact store; torch and the models are imported by its thread.

    Args:
        store: the artifact store.
        device: as the setting `device`.
        threads: CPU threads of arithmetic; 0 takes all.

    """
    from ranking.bundle.store import current_version

    def load(version: str) -> LoadedModel:
        import torch

        from encoders.device import resolve_device
        from explorer.model import load_model

        if threads:
            torch.set_num_threads(threads)
        return load_model(store, version, resolve_device(device))

    return BundleLoader(lambda: current_version(store), load)
