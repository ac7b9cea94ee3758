from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console

import shelfwise

Table = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    printed: str


class Shell:
    """A folder in which files are written and commands are typed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def write(self, **files: str | bytes | object) -> None:
        """Write files: `items_csv="..."` is `items.csv`; other things are written as JSON."""
        for key, content in files.items():
            name = ".".join(key.rsplit("_", 1))
            text = content if isinstance(content, str | bytes) else json.dumps(content)
            (self.folder / name).write_bytes(text.encode() if isinstance(text, str) else text)

    def type(self, command: str) -> Answer:
        """Type a command, as a shell hands its words over."""
        out = StringIO()
        self._monkeypatch.setattr(shelfwise, "CONSOLE", Console(file=out, width=300))
        self._monkeypatch.setattr(shelfwise, "ERRORS", Console(file=out, width=300))
        self._monkeypatch.setattr(sys, "argv", shlex.split(command))
        code = 0
        try:
            shelfwise.main()
        except SystemExit as error:
            code = int(error.code or 0)
        return Answer(code, out.getvalue())

    def prepare(self, settings: str) -> str:
        """Type `shelfwise prepare`, which must succeed; return what it printed."""
        answer = self.type(f"shelfwise prepare {settings} work_dir=work")
        assert answer.code == 0, answer.printed
        return answer.printed

    def refused(self, settings: str) -> str:
        """Type `shelfwise prepare`, which must stop with an error of its own; return the error."""
        answer = self.type(f"shelfwise prepare {settings} work_dir=work")
        assert answer.code == 2, answer.printed
        assert answer.printed.startswith("shelfwise: ")
        return answer.printed.removeprefix("shelfwise: ").rstrip()

    def inspect(self, files: str) -> tuple[str, str]:
        """Type `shelfwise inspect`, then the command that it prints, up to `prepare`.

        Returns:
            What `inspect` printed, and the settings of its command.
        """
        answer = self.type(f"shelfwise inspect {files}")
        assert answer.code == 0, answer.printed
        command = answer.printed.rstrip().splitlines()[-1]
        assert command.startswith("shelfwise run "), answer.printed
        settings = command.removeprefix("shelfwise run ").removesuffix(" work_dir=work/shop")
        self.prepare(settings)
        return answer.printed, settings

    @property
    def info(self) -> dict[str, Any]:
        """dataset.json of the last command that succeeded."""
        info: dict[str, Any] = json.loads((self.folder / "work" / "dataset" / "dataset.json").read_text())
        return info

    def table(self, name: str, *columns: str) -> Table:
        """Return columns of the data set's items, events or rejects, in the order of the file."""
        path = self.folder / "work" / "dataset" / f"{name}.parquet"
        return pl.read_parquet(path, columns=list(columns)).select(columns).rows()


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, monkeypatch)
