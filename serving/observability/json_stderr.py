"""Standard error as JSON lines, whoever writes to it: gRPC's core, C libraries, tracebacks, the interpreter.

Descriptor 2 becomes a pipe, which all processes of the server inherit. A small process reads it and wraps
what is no JSON object yet. It is not a thread, because it has to write the last lines of a process that
crashes or is killed: it ends when the last writer has closed the pipe, and ignores the signals that
supervisors send to all processes. It is this file, run as a script with nothing but the standard library.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_MARK: Final = "SHELFWISE_STDERR_PIPE"
"""Environment variable with the inode of the pipe, for child processes."""
_READ_BYTES: Final = 65_536
_LONGEST_BYTES: Final = 1_048_576
"""A line without an end is written at this length."""
_IDLE_SECONDS: Final = 0.5
"""Time after which an unfinished traceback is written."""
_END_SECONDS: Final = 1.0
"""Time for the last lines when the process ends."""
_CORE: Final = re.compile(r"^([IWEF])\d{4} \d\d:\d\d:\d+\.\d+\s+\d+ ([\w./+-]+:\d+)\] ?(.*)$")
"""A line of gRPC's core: level, date, time, thread, source, message (the layout of Abseil)."""
_LEVELS: Final = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}
_TRACEBACK: Final = "Traceback (most recent call last):"


def capture_stderr() -> None:
    """Have everything that this process and its children write to standard error become JSON lines."""
    sys.stderr.flush()
    if os.environ.get(_MARK) == str(os.fstat(2).st_ino):
        return  # a parent has done it
    reading, writing = os.pipe()
    original = os.dup(2)
    forwarder = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__))],
        stdin=reading, stdout=subprocess.DEVNULL, stderr=original, start_new_session=True,
    )  # fmt: skip
    os.dup2(writing, 2)
    os.environ[_MARK] = str(os.fstat(2).st_ino)
    os.close(reading)
    os.close(writing)
    atexit.register(_release, original, forwarder, os.getpid())


def _release(original: int, forwarder: subprocess.Popen[bytes], owner: int) -> None:
    """Close the pipe at the end of the process, and wait for its last lines."""
    if os.getpid() != owner:
        return
    sys.stderr.flush()
    os.dup2(original, 2)
    os.environ.pop(_MARK, None)
    with contextlib.suppress(subprocess.TimeoutExpired):  # a child still has the pipe
        forwarder.wait(_END_SECONDS)


def forward(source: int, target: int) -> None:
    """Copy lines to a descriptor until the source ends."""
    traceback: list[str] = []
    for line in _lines(source):
        if line is not None and _is_object(line):  # of another thread or process, even within a traceback
            _write(target, line)
        elif line is None or (traceback and line and not line.startswith(" ")):
            if traceback:
                if line is not None:
                    traceback.append(line)
                _write(target, _error(traceback))
                traceback = []
        elif traceback or line == _TRACEBACK:
            traceback.append(line)
        elif line:
            _write(target, json.dumps(_wrapped(line), ensure_ascii=False))
    if traceback:
        _write(target, _error(traceback))


def _lines(source: int) -> Iterator[str | None]:
    """Yield lines without their ends, and None whenever nothing has come for a while."""
    rest = b""
    while True:
        if not rest and not select.select([source], [], [], _IDLE_SECONDS)[0]:
            yield None
            continue
        data = os.read(source, _READ_BYTES)
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
        if rest and (not data or len(rest) > _LONGEST_BYTES):
            yield rest.decode(errors="replace")
            rest = b""
        if not data:
            return


def _error(traceback: list[str]) -> str:
    lines = [line for line in traceback if line]
    entry = {**_entry("ERROR", "stderr", lines[-1]), "exception": "\n".join(traceback)}
    return json.dumps(entry, ensure_ascii=False)


def _wrapped(line: str) -> dict[str, Any]:
    found = _CORE.match(line)
    if found is None:
        return _entry("WARNING", "stderr", line)
    level, place, message = found.groups()
    return {**_entry(_LEVELS[level], "grpc.core", message), "source": place}


def _entry(level: str, logger: str, message: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"time": now, "level": level, "logger": logger, "message": message}


def _is_object(line: str) -> bool:
    try:
        return line.startswith("{") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _write(target: int, line: str) -> None:
    content = line.encode() + b"\n"
    while content:
        content = content[os.write(target, content) :]


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # nobody reads the output any more
        forward(0, 2)
