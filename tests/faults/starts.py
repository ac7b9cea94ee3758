"""Tries `shelfwise serve` on one store after another, each in a process of its own with everything loaded.

`python -m tests.faults.starts`: reads lines with the path of a store, answers each with a line of JSON: exit
status (null where the server came up) and standard error. Forked, because a start from nothing takes seconds.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

import serving.server  # noqa: F401 - what a start would import
import shelfwise
from conf.composition.compose import compose_command
from conf.errors import InputError


def _start(config: Any, errors: int) -> None:
    """Be the server; never returns. This is the end of `shelfwise.main`, once arguments are read."""
    os.dup2(errors, 2)
    os.dup2(errors, 1)
    code = 1
    try:
        try:
            shelfwise.execute("serve", config)
            code = 0
        except InputError as error:
            shelfwise.fail(error)
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _tried(config: Any) -> tuple[int | None, str]:
    with tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            _start(config, errors.fileno())
        deadline = time.monotonic() + 20
        ended, status = os.waitpid(child, os.WNOHANG)
        while not ended and time.monotonic() < deadline and "listening on" not in _content(errors.fileno()):
            time.sleep(0.005)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            os.kill(child, 9)
            os.waitpid(child, 0)
        return (os.waitstatus_to_exitcode(status) if ended else None), _content(errors.fileno())


def _content(file: int) -> str:
    return os.pread(file, 100_000, 0).decode()


def main() -> None:
    config: Any = compose_command("serve", ["port=0"])
    for line in sys.stdin:
        json.dump(_tried(replace(config, artifacts=line.rstrip("\n"))), sys.stdout)
        sys.stdout.write("\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
