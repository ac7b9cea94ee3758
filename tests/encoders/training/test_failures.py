"""The one line that several failing processes end with."""

from __future__ import annotations

import os
from pathlib import Path

from encoders.training.failures import (  # fmt: skip
    GONE,
    clear_failures,
    first_to_report,
    joint_failure,
    record_failure,
)

AGAIN = "; the same command resumes after the last finished epoch"
LOST = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234")


def at(path: Path, second: int) -> None:
    os.utime(path, (second, second))


def test_the_cause_is_the_earliest_traceback_that_is_no_lost_connection(tmp_path: Path) -> None:
    errors = {0: LOST, 2: ValueError("too late"), 1: ValueError("first\nof all")}
    for rank, error in errors.items():
        record_failure(error, tmp_path, rank)
    for rank, second in ((0, 10), (1, 20), (2, 30)):
        at(tmp_path / f"failure-{rank}.txt", second)
    found = str(joint_failure(tmp_path, "process 3 was killed"))
    path = tmp_path / "failure-1.txt"
    assert found == f"a process of the training failed: ValueError: first (the traceback is in {path}){AGAIN}"


def test_the_first_line_of_a_message_is_the_reason_and_all_of_it_may_name_a_lost_connection(
    tmp_path: Path,
) -> None:
    hint = "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."
    lost = RuntimeError(f"NCCL error\n{LOST}\nlast error: none")
    for rank, error in enumerate((lost, RuntimeError(f"CUDA error: device-side assert\n{hint}\n"))):
        try:
            raise error
        except RuntimeError as raised:
            record_failure(raised, tmp_path, rank)
        at(tmp_path / f"failure-{rank}.txt", rank + 1)
    (tmp_path / "failure-2.txt").touch()
    at(tmp_path / "failure-2.txt", 0)
    found = str(joint_failure(tmp_path))
    path = tmp_path / "failure-1.txt"
    assert found == (
        f"a process of the training failed: RuntimeError: CUDA error: device-side assert "
        f"(the traceback is in {path}){AGAIN}"
    )
    assert "raise error" in path.read_text()


def test_without_a_cause_a_process_was_killed(tmp_path: Path) -> None:
    assert str(joint_failure(tmp_path)) == f"a process of the training failed: {GONE}{AGAIN}"
    record_failure(LOST, tmp_path, 0)
    assert str(joint_failure(tmp_path)) == f"a process of the training failed: {GONE}{AGAIN}"
    killed = "process 1 was killed by SIGKILL"
    assert str(joint_failure(tmp_path, killed)) == f"a process of the training failed: {killed}{AGAIN}"


def test_one_of_all_reports_and_the_next_attempt_begins_anew(tmp_path: Path) -> None:
    record_failure(LOST, tmp_path, 0)
    (tmp_path / "last.ckpt").touch()
    assert [first_to_report(tmp_path) for _ in range(3)] == [True, False, False]
    clear_failures(tmp_path)
    assert os.listdir(tmp_path) == ["last.ckpt"]
    assert first_to_report(tmp_path)
