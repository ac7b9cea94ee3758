"""What every view can use: the store, the loaded bundle, the evaluation's folder, a server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conf.clients import ConnectionConfig
from conf.schema import PrivacyConfig
from explorer.problems import PageError

if TYPE_CHECKING:
    from explorer.loading import BundleLoader
    from explorer.model import LoadedModel


@dataclass(frozen=True)
class ExplorerContext:
    """What the explorer was started with, the same for all requests."""

    store: Path | None = None
    """The artifact store; None where only a server is asked."""
    evaluation: Path | None = None
    """Folder with the evaluation of a run; it may be missing."""
    server: ConnectionConfig | None = None
    """Address of a running server and the credentials for it."""
    loader: BundleLoader | None = None
    """Loads the store's current bundle and follows it; None without a store."""
    write: bool = False
    """Whether views may change anything at the server."""
    privacy: PrivacyConfig = PrivacyConfig()

    @property
    def work(self) -> Path | None:
        """The work directory of the run: the folder that the store is in, with `dataset/` beside it."""
        return None if self.store is None else self.store.parent

    def model(self) -> LoadedModel:
        """Return the newest bundle that is loaded.

        Raises:
            LoadingError: it is being loaded; the reader gets a page that comes back by itself.
            PageError: it cannot be loaded, or there is no store.

        """
        if self.loader is None:
            raise PageError(
                404,
                "This page needs a bundle",
                "The explorer was started with a server alone. Start it with the store as well: "
                "shelfwise explore artifacts=DIR server=HOST:PORT",
            )
        return self.loader.current()

    def metrics(self) -> dict[str, Any] | None:
        """Return `metrics.json` of the evaluation, or None where nothing was measured."""
        if self.evaluation is None:
            return None
        try:
            found: dict[str, Any] = json.loads((self.evaluation / "metrics.json").read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            name = self.evaluation / "metrics.json"
            raise PageError(500, "The evaluation cannot be read", f"{name}: {error}") from error
        return found
