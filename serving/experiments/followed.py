"""The file of experiments while serving: read when it changes; an invalid one leaves the former in force."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from conf.errors import InputError
from serving.core.poller import FileVersion, Poller, file_version
from serving.experiments.definitions import Experiment
from serving.experiments.reading import StoredId, read_experiments

_LOG = logging.getLogger(__name__)
POLL_SECONDS: Final = 0.5
"""Interval of checks for a change, so that `enabled: false` takes effect within a second."""
_RETRY_SECONDS: Final = 5.0
"""Interval in which an unchanged invalid file is read again: what it refers to may have changed."""


class FollowedFile:
    """The experiments of a file; create and use it inside a running event loop."""

    def __init__(
        self,
        path: Path | None,
        stored_id: StoredId,
        check: Callable[[tuple[Experiment, ...]], None],
        changed: Callable[[], None],
    ) -> None:
        """Read the file.

        Args:
            path: the file; None for no experiments.
            stored_id: maps user ids to those of the state.
            check: raises InputError for experiments that cannot be used with the served model.
            changed: called after a change of `experiments` or `failure`.

        Raises:
            InputError: the file cannot be read, or is invalid.
        """
        self.experiments: tuple[Experiment, ...] = ()
        """In the order of the file."""
        self.failure = ""
        """Why the present content is not used; empty where it is."""
        self._path = path
        self._stored_id = stored_id
        self._check = check
        self._changed = changed
        self._tried = 0.0
        if path is not None:
            self.experiments = read_experiments(path, stored_id)
            check(self.experiments)
        self._seen = self._versions()
        self.poller = Poller(self._poll, POLL_SECONDS, "the experiments' file cannot be followed")
        """Reads the file when it changes, from `start` on."""

    def start(self) -> None:
        """Follow the file from now on."""
        if self._path is not None:
            self.poller.start()

    async def _poll(self) -> None:
        assert self._path is not None
        seen = await asyncio.to_thread(self._versions)
        due = bool(self.failure) and time.monotonic() - self._tried >= _RETRY_SECONDS
        if seen == self._seen and not due:
            return
        self._tried = time.monotonic()
        try:
            experiments = await asyncio.to_thread(read_experiments, self._path, self._stored_id)
            self._check(experiments)
        except InputError as error:
            if str(error) != self.failure:
                _LOG.error("the former experiments stay in force: %s", error)
            self.failure, self._seen = str(error), seen
        else:
            self.experiments, self.failure = experiments, ""
            in_force = [e.name for e in experiments if e.prepared(time.time())]
            _LOG.warning("experiments in force: %s", ", ".join(in_force) or "none")
            # With the version of before the reading: a change meanwhile is read next time.
            self._seen = (seen[0], *(await asyncio.to_thread(self._versions))[1:])
        self._changed()

    def _versions(self) -> tuple[FileVersion, ...]:
        """Return the versions of the file and of the files of excluded users."""
        paths = [self._path, *(experiment.excluded_file for experiment in self.experiments)]
        return tuple(file_version(path) for path in paths if path is not None)
