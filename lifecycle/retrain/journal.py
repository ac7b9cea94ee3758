"""The journal of a run, which is its audit file, too: what every step found, written after each of them.

A step that has a record is finished; a run without an outcome was interrupted. So a killed run is resumed
from the same file that a person reads.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from conf.lifecycle import RetrainConfig
from features.data.pipeline_step import fingerprint, plain, write_atomically
from lifecycle.retrain.outcomes import Outcome

FORMAT_VERSION: Final = 1
_SECRET: Final = re.compile(r"(?<=://)\S*@")
"""Up to the last @, as a password may have one."""
_RUN: Final = re.compile(r"^\d{8}T\d{6}Z$")


def now_iso() -> str:
    """Return the present time, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def without_secrets(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return plain values in which the credentials of addresses (`redis://user:password@host`) are hidden."""
    if isinstance(value, str):
        return _SECRET.sub("***@", value)
    if isinstance(value, Mapping):
        return {key: without_secrets(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_secrets(part) for part in value]
    return value


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return str(os.getuid())


@dataclass(frozen=True)
class Journal:
    """One run's file and its content."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def begin(cls, folder: Path, config: RetrainConfig) -> Journal:
        """Return the journal of a new run, whose id is the time; nothing is written yet."""
        moment = datetime.now(UTC).replace(microsecond=0)
        known = runs(folder)
        if known:
            newest = datetime.strptime(known[-1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            moment = max(moment, newest.fromtimestamp(newest.timestamp() + 1, UTC))
        name = f"{moment:%Y%m%dT%H%M%SZ}"
        return cls(
            folder / f"{name}.json",
            {
                "format_version": FORMAT_VERSION,
                "run": name,
                "outcome": None,
                "exit_code": None,
                "reason": None,
                "started": now_iso(),
                "finished": None,
                "user": _user(),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "resumed": [],
                "interrupted": [],
                "settings": without_secrets(plain(config)),
                "settings_hash": settings_hash(config),
                "steps": {},
            },
        )

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """Return a journal, or None for a file that is none or of another format."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format_version"] == FORMAT_VERSION and content["run"] == path.stem:
                return cls(path, content)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    @property
    def run(self) -> str:
        """Id of the run."""
        return str(self.content["run"])

    @property
    def open(self) -> bool:
        """Whether the run has not ended."""
        return self.content["outcome"] is None

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """The records of the finished steps, by name, in order."""
        steps: dict[str, dict[str, Any]] = self.content["steps"]
        return steps

    @property
    def published(self) -> str | None:
        """The version that the run has made current, also where it was rolled back later."""
        version = self.steps.get("publish", {}).get("version")
        return None if version is None else str(version)

    @property
    def age_seconds(self) -> float:
        """Seconds since the run began."""
        begun = datetime.fromisoformat(self.content["started"])
        return (datetime.now(UTC) - begun).total_seconds()

    def note(self, key: str, value: Any) -> None:  # noqa: ANN401 - JSON
        """Write a fact beside the steps."""
        self.content[key] = without_secrets(plain(value))
        self.save()

    def finish_step(
        self,
        name: str,
        record: Mapping[str, Any],
        seconds: float,
        ending: tuple[Outcome, str] | None = None,
    ) -> None:
        """Write the record of a finished step, and how the run ends where it ends with it."""
        self.steps[name] = {**without_secrets(plain(dict(record))), "seconds": round(seconds, 2)}
        if ending is None:
            self.save()
        else:
            self.end(*ending)

    def end(self, outcome: Outcome, reason: str) -> None:
        """Write how the run ended."""
        self.content.update(
            outcome=outcome.value,
            exit_code=outcome.exit_code,
            reason=without_secrets(reason),
            finished=now_iso(),
        )
        self.save()

    def save(self) -> None:
        """Write the file, atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.content, indent=2, ensure_ascii=False, default=str)
        write_atomically(self.path, text + "\n")


def settings_hash(config: RetrainConfig) -> str:
    """Return a hash of the settings that decide what a run makes."""
    values = plain(config)
    for name in ("threads", "device", "devices", "dry_run"):
        values.pop(name)
    return fingerprint(values)


def runs(folder: Path) -> list[str]:
    """Return the ids of the runs with a file, oldest first."""
    return sorted(path.stem for path in folder.glob("*.json") if _RUN.match(path.stem))


def journals(folder: Path) -> list[Journal]:
    """Return the readable journals, oldest first."""
    found = (Journal.read(folder / f"{run}.json") for run in runs(folder))
    return [journal for journal in found if journal is not None]


def publisher(earlier: Sequence[Journal], version: str | None) -> Journal | None:
    """Return the run, of some, that published a version; None where it was none of them."""
    found = (journal for journal in earlier if version is not None and journal.published == version)
    return next(found, None)
