"""The page "From laptop to production": its blocks, in order, in one folder, on a real server."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.programs import require

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "production.md"
FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = ("sh",)


class Folder:
    """A folder with the programs that the page's commands call, and what they printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[subprocess.Popen[str]] = []
        self.printed: dict[str, str] = {}
        self.names: dict[str, Any] = {}
        """What the Python blocks share."""
        self.done = 0
        """Blocks that have run."""
        self.ports = {"50051": _free_port(), "9464": _free_port()}
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / "bin").mkdir()
        for name, call in (("python", ""), ("shelfwise", "-m shelfwise ")):
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {call}"$@"\n')
            program.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'clients' / 'python'}",
        }

    def here(self, text: str) -> str:
        """Return a command or block with the ports that are free."""
        for documented, free in self.ports.items():
            text = re.sub(rf"(?<=localhost:){documented}\b|(?<=port=){documented}\b", free, text)
        return text

    def run(self, line: str) -> None:
        command = self.here(line)
        if command.endswith("&"):
            self._serve(command.removesuffix("&"))
            return
        ended = subprocess.run(
            ["/bin/bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
        self.printed[line] = ended.stdout

    def _serve(self, command: str) -> None:
        port = "" if " port=" in command else f" port={self.ports['50051']}"
        server = subprocess.Popen(
            ["/bin/bash", "-c", f"exec {command.strip()}{port}"],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.servers.append(server)
        assert server.stdout is not None
        for line in server.stdout:
            if "listening on" in line:
                break
        else:
            raise AssertionError(server.communicate()[1])
        threading.Thread(target=server.communicate, daemon=True).start()


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    made = Folder(tmp_path_factory.mktemp("production"))
    yield made
    for server in made.servers:
        server.terminate()
    for server in made.servers:
        server.wait(60)


def blocks() -> list[tuple[str, str]]:
    """Return language and text of every block, in order."""
    return FENCE.findall(PAGE.read_text())


def test_a_block_is_run_or_said_not_to_be() -> None:
    assert {language for language, _ in blocks()} == {"", "python", *NOT_RUN}
    run = "\n".join(text for language, text in blocks() if not language)
    for command in ("inspect", "run", "serve", "health", "backup", "restore", "retrain", "experiment report"):
        assert re.search(rf"^shelfwise {command}\b", run, re.MULTILINE), command
    assert "rollback" in run


@pytest.mark.parametrize("number", range(len(blocks())))
def test_every_block_of_the_page_in_order(
    number: int, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("openssl", "curl")
    if folder.done != number:
        pytest.skip("an earlier block failed")
    monkeypatch.chdir(folder.folder)
    language, text = blocks()[number]
    if language == "python":
        keys = [said.split()[-1] for line, said in folder.printed.items() if "create-key" in line]
        folder.names |= {"KEY": keys[0], "OPERATOR_KEY": keys[1]}
        exec(compile(folder.here(text), str(PAGE), "exec"), folder.names)
    elif language not in NOT_RUN:
        for line in text.splitlines():
            folder.run(line)
    folder.done += 1


def test_what_the_blocks_left(folder: Folder) -> None:
    assert folder.done == len(blocks())
    restored = pl.read_parquet(folder.folder / "work" / "drill-events.parquet")
    # five impressions and a click of each of thirty shoppers
    assert dict(restored["event"].value_counts().iter_rows()) == {"impression": 150, "view": 30}
    assert restored["experiments"].is_in(["variety=control", "variety=varied"]).all()
    (report,) = (said for line, said in folder.printed.items() if "experiment report" in line)
    assert "variety: go on" in report
    assert (folder.folder / "work" / "variety" / "report.html").is_file()
    (metrics,) = (said for line, said in folder.printed.items() if line.endswith("/metrics"))
    assert "shelfwise_events_total" in metrics
    exported = (folder.folder / "work" / "u3.jsonl").read_text().splitlines()
    assert sum('"impression"' in line for line in exported) == 5
    audit = (folder.folder / "work" / "audit.jsonl").read_text()
    assert '"DeleteUser"' in audit
    assert '"u3"' not in audit
    assert folder.names["erased"].deleted_event_count > 6  # the imported history, too
