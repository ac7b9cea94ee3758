"""The audit log: who changed or erased what, a JSON object per line, only ever appended to.

Every line is one write to a file opened with O_APPEND, so processes share a file without a lock. Before each
write the file's name is looked up again: after a rotation lines go to the new file, without a signal.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import socket
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from conf.errors import InputError
from features.files.modes import PRIVATE

STORE_LOG: Final = "audit.jsonl"
"""Name of the log of commands, in the artifact store."""
_STDERR: Final = "stderr"
_LOG = logging.getLogger(__name__)


class AuditLog:
    """An open log; every method may be called from any thread."""

    def __init__(self, target: str) -> None:
        """Open it.

        Args:
            target: a file, which only its owner can read, or `stderr`.

        Raises:
            InputError: the file cannot be written.
        """
        self._path = None if target == _STDERR else Path(target)
        self._lock = threading.Lock()
        self._descriptor = -1
        self._failing = False
        if self._path is not None:
            try:
                self._reopen(self._path)
            except OSError as error:
                raise InputError(f"audit={target}: cannot be written ({error.strerror})") from error

    def write(self, action: str, outcome: str, *, sync: bool = False, **fields: Any) -> None:  # noqa: ANN401 - JSON
        """Append a line; a failure is logged, because the change itself has been made.

        Args:
            action: what was done: the name of an RPC or a command.
            outcome: `OK`, or the name of the gRPC status.
            sync: whether the line is on disk when this returns.
            fields: of the line; None is left out.
        """
        now = time.time_ns() // 1000
        line = {
            "time": datetime.fromtimestamp(now / 1_000_000, UTC).isoformat(timespec="microseconds"),
            "time_us": now,
            "action": action,
            "outcome": outcome,
            **{name: value for name, value in fields.items() if value is not None},
        }
        content = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        if self._path is None:
            sys.stderr.write(content.decode())
            sys.stderr.flush()
            return
        try:
            with self._lock:
                self._append(self._path, content, sync)
            self._failing = False
        except OSError as error:
            if not self._failing:
                _LOG.error(
                    "%s: the audit log cannot be written (%s); lines are missing", self._path, error.strerror
                )
            self._failing = True

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, path: Path, content: bytes, sync: bool) -> None:
        try:
            named = path.stat()
            opened = os.fstat(self._descriptor)
            moved = (named.st_ino, named.st_dev) != (opened.st_ino, opened.st_dev)
        except OSError:
            moved = True
        if moved:
            self._reopen(path)
        written = os.write(self._descriptor, content)
        if written < len(content):  # the disk is full: end the torn line, so that the next one is whole
            os.write(self._descriptor, b"\n")
            raise OSError(28, "No space left on device")
        if sync:
            os.fsync(self._descriptor)

    def _reopen(self, path: Path) -> None:
        former, self._descriptor = self._descriptor, -1
        if former >= 0:
            os.close(former)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, PRIVATE)


def record_command(folder: Path, action: str, **fields: Any) -> None:  # noqa: ANN401 - JSON
    """Append a line about a command of an operator to the log of a folder; a failure is only logged.

    Args:
        folder: the artifact store, or the folder of what was changed.
        action: name of the command.
        fields: what it has done; no secrets.
    """
    try:
        log = AuditLog(str(folder / STORE_LOG))
    except InputError as error:
        _LOG.warning("%s", error)
        return
    log.write(action, "OK", sync=True, **_who(), **fields)
    log.close()


def _who() -> dict[str, str]:
    """Return the account that runs this process, and the machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in containers
        user = str(os.getuid())
    before = os.environ.get("SUDO_USER")
    return {"account": user, **({"sudo_account": before} if before else {}), "host": socket.gethostname()}
