"""A step that is repeated: what fails is one line, and tried again."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable

import pytest

from conf.errors import InputError
from ranking.bundle.distribution.follow import follow


def test_errors_of_the_disk_are_retried_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    errors: list[Exception] = [
        OSError(errno.EIO, "Input/output error", "/srv/store/versions"),
        OSError(errno.EIO, "Input/output error", "/srv/store/versions"),
        OSError("no number"),
        InputError("the bucket is away"),
    ]
    done: list[bool] = []

    def step(_: Callable[[], bool]) -> None:
        if errors:
            raise errors.pop(0)
        done.append(True)
        os.kill(os.getpid(), signal.SIGTERM)

    follow(step, 0.01, "fetch")
    assert done == [True]
    assert capsys.readouterr().err.splitlines() == [
        f"shelfwise fetch: {said} (again every 0.01 s)"
        for said in ("/srv/store/versions: Input/output error", "no number", "the bucket is away")
    ]
