"""A server on a copy of a run's published bundle, so that a demonstration does not modify the run."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from conf.errors import InputError

_OPEN = ("reflection=true", "admin=true")
"""Settings of a server that only this machine reaches."""
_LISTENING = re.compile(r"listening on (\S+:\d+)")
START_SECONDS = 120.0


@contextmanager
def copied_store(artifacts: Path) -> Iterator[Path]:
    """Yield a temporary copy of an artifact store, next to the original, without recorded state.

    Erasing a user rewrites the store's histories, and added items stay in its state: the copy is removed with
    both.
    """
    folder = Path(tempfile.mkdtemp(prefix=".demo-", dir=artifacts.parent))
    try:
        copy = folder / artifacts.name
        shutil.copytree(artifacts, copy, ignore=shutil.ignore_patterns("state.sqlite*"))
        yield copy
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_server(artifacts: Path, console: Console) -> Iterator[str]:
    """Run `shelfwise serve` on a free port in a separate process; yield its address, then stop it.

    Raises:
        InputError: the server does not start, or does not end cleanly.
    """
    command = [sys.executable, "-m", "shelfwise", "serve", f"artifacts={artifacts}", "port=0", *_OPEN]
    with console.status("starting a server"):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        timer = threading.Timer(START_SECONDS, process.kill)
        timer.start()
        address = None
        for line in process.stdout:
            console.print(f"[dim]server: {escape(line.rstrip())}[/dim]")
            found = _LISTENING.search(line)
            if found:
                address = found.group(1)
                break
        timer.cancel()
    try:
        if address is None:
            raise InputError(f"the server did not start (exit code {process.wait()})")
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        process.stdout.close()
    if code != 0:
        raise InputError(f"the server stopped with exit code {code}")
    console.print("[dim]server: stopped[/dim]")
