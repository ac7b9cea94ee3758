"""The lock that workers share."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.core.turns import LOCK, Turn, lock_file

ROOT = Path(__file__).parents[3]
WORKER = """
import asyncio, sys
from serving.core.turns import Turn

async def main():
    async with Turn.of_worker():
        print("taken", flush=True)
        sys.stdin.readline()
    print("released", flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""


def worker(lock: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER],
        cwd=ROOT, env={**os.environ, LOCK: str(lock)}, pass_fds=(lock,),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("killed", [False, True])
def test_one_process_at_a_time_has_the_lock_and_its_end_releases_it(killed: bool) -> None:
    lock = lock_file()
    with worker(lock) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "taken\n"

        async def take() -> None:
            turn = Turn(lock)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3), turn:
                    raise AssertionError("two have it")
            if killed:
                other.kill()
            else:
                print(file=other.stdin, flush=True)
            async with asyncio.timeout(10), turn:
                pass

        asyncio.run(take())
        other.kill()
    os.close(lock)


def test_a_cancelled_block_releases_the_lock() -> None:
    lock = lock_file()

    async def cancel() -> None:
        async def hold() -> None:
            async with Turn(lock):
                await asyncio.sleep(60)

        holding = asyncio.create_task(hold())
        await asyncio.sleep(0.01)
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)

    asyncio.run(cancel())
    with worker(lock) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        other.kill()
    os.close(lock)


def test_without_workers_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOCK, raising=False)
    turn = Turn.of_worker()
    assert not turn.shared

    async def both() -> None:
        async with asyncio.timeout(1), turn, Turn.of_worker():
            pass

    asyncio.run(both())
