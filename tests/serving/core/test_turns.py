"""The lock that workers share."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.core.turns import LOCK, Turn, lock_file

ROOT = Path(__file__).parents[3]
WORKER = """
import sys
from serving.core.turns import Turn

with Turn.of_worker().tried() as mine:
    print("taken" if mine else "refused", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.readline()
"""


def worker(lock: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER],
        cwd=ROOT, env={**os.environ, LOCK: str(lock)}, pass_fds=(lock,),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def taken(turn: Turn) -> bool:
    with turn.tried() as mine:
        return mine


@pytest.mark.parametrize("killed", [False, True])
def test_one_process_at_a_time_has_the_lock_and_its_end_releases_it(killed: bool) -> None:
    lock = lock_file()
    with worker(lock) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "taken\n"
        turn = Turn(lock)
        assert turn.shared
        assert [taken(turn), taken(turn)] == [False, False]  # at once, and a refusal releases nothing
        if killed:
            other.kill()
            other.wait(10)
        else:
            print(file=other.stdin, flush=True)
            assert other.stdout.readline() == "released\n"
        with turn.tried() as outer:
            assert (outer, taken(turn)) == (True, True)
            with worker(lock) as third:
                assert third.stdout is not None
                assert third.stdout.readline() == "refused\n"  # the inner block has released nothing
                third.kill()
        assert taken(turn)
        other.kill()
    os.close(lock)


def test_a_block_that_fails_releases_the_lock() -> None:
    lock = lock_file()
    with contextlib.suppress(RuntimeError), Turn(lock).tried() as mine:
        assert mine
        raise RuntimeError
    with worker(lock) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        other.kill()
    os.close(lock)


def test_without_workers_the_lock_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOCK, raising=False)
    turn = Turn.of_worker()
    assert not turn.shared
    with turn.tried() as one, Turn.of_worker().tried() as other:
        assert (one, other) == (True, True)
