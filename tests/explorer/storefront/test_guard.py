"""The process that ends the storefront's server with the explorer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from explorer.storefront import guard
from tests.processes import runs

ROOT = Path(__file__).parents[3]
SLEEPER = "import os, pathlib, time; pathlib.Path({path!r}).write_text(str(os.getpid())); time.sleep(600)"


class Guards:
    """Guards that a test starts."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, folder: Path, program: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "explorer.storefront.guard",
            str(folder),
            sys.executable,
            "-c",
            program,
        ]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT)
        self.processes.append(process)
        return process


@pytest.fixture
def guards() -> Iterator[Guards]:
    found = Guards()
    yield found
    for process in found.processes:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def pid_in(file: Path) -> int:
    until(lambda: file.is_file() and file.read_text() != "")
    return int(file.read_text())


def test_closing_its_input_stops_the_program_and_removes_the_folder(tmp_path: Path, guards: Guards) -> None:
    folder, file = tmp_path / "state", tmp_path / "pid"
    folder.mkdir()
    process = guards.start(folder, SLEEPER.format(path=str(file)))
    pid = pid_in(file)
    assert runs(pid)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == signal.SIGTERM
    assert not runs(pid)
    assert not folder.exists()


def test_a_killed_owner_leaves_no_program(tmp_path: Path) -> None:
    folder, file = tmp_path / "state", tmp_path / "pid"
    folder.mkdir()
    arguments = [sys.executable, "-m", "explorer.storefront.guard", str(folder), sys.executable, "-c",
                 SLEEPER.format(path=str(file))]  # fmt: skip
    owner = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:], stdin=-1); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", owner, *arguments], cwd=ROOT)
    pid = pid_in(file)
    process.kill()
    process.wait()
    until(lambda: not runs(pid))
    until(lambda: not folder.exists())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has death signals")
def test_a_killed_guard_leaves_no_program(tmp_path: Path, guards: Guards) -> None:
    file = tmp_path / "pid"
    process = guards.start(tmp_path, SLEEPER.format(path=str(file)))
    pid = pid_in(file)
    process.kill()
    process.wait()
    until(lambda: not runs(pid))


def test_a_program_that_ends_keeps_its_folder_and_passes_on_its_code(tmp_path: Path, guards: Guards) -> None:
    process = guards.start(tmp_path, "raise SystemExit(3)")
    assert process.wait(60) == 3
    assert tmp_path.is_dir()
    killed = guards.start(tmp_path, f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})")
    assert killed.wait(60) == signal.SIGKILL


def test_a_program_that_ignores_the_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(guard, "STOP_SECONDS", 0.2)
    reader, writer = os.pipe()
    stdin = os.fdopen(reader)
    monkeypatch.setattr(sys, "stdin", stdin)
    file, folder = tmp_path / "pid", tmp_path / "state"
    folder.mkdir()
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER.format(
        path=str(file)
    )

    def close_when_it_runs() -> None:
        pid_in(file)
        os.close(writer)

    threading.Thread(target=close_when_it_runs).start()
    assert guard.run(folder, [sys.executable, "-c", stubborn]) == -signal.SIGKILL
    assert not folder.exists()
    stdin.close()
