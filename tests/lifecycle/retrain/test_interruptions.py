"""Kills in the middle of a night: the served model stays, and the next call resumes the same run."""

from __future__ import annotations

import json
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from conf.errors import InputError
from lifecycle.retrain.command import STEPS
from lifecycle.retrain.journal import Journal, journals
from lifecycle.retrain.lock import LockedError, run_lock
from lifecycle.retrain.night import Night
from ranking.bundle.store import VERSIONS, verify, versions
from tests.lifecycle.retrain.conftest import FIRST, Shop

ROOT = Path(__file__).parents[3]


def start(shop: Shop, place: str, **settings: Any) -> subprocess.Popen[str]:
    """Start a night in a process of its own that kills itself at a place."""
    path = shop.places.root / "settings.pickle"
    path.write_bytes(pickle.dumps(shop.settings(**settings)))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.lifecycle.retrain.killed_night", str(path), place],
        cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def killed(shop: Shop, place: str) -> None:
    """Run a night that is killed."""
    process = start(shop, place)
    printed, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, printed


class KilledError(BaseException):
    """Ends a night without a chance to write anything, as a kill does; a process takes ten times as long."""


def cut_off(shop: Shop, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Run a night that ends when the work of a step is done, before the journal says so."""
    step = STEPS[place]

    def work(night: Night) -> dict[str, Any]:
        step(night)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setitem(STEPS, place, work)
        with pytest.raises(KilledError):
            shop.night()


def test_a_night_cut_off_after_every_step_is_one_night(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shop.current
    for number, place in enumerate(STEPS):
        cut_off(shop, monkeypatch, place)
        assert list(shop.last.steps) == list(STEPS)[:number], place
        published = list(STEPS).index("publish")
        assert (shop.current > before) is (number >= published), place
    made = shop.current
    code, lines = shop.night()
    assert code == 0
    assert lines[0] == (
        f"retrain: resuming run {shop.last.run}, which was interrupted after: "
        "collect, prepare, check, plan, train, observe, publish"
    )
    assert (shop.current, versions(shop.store)) == (made, [before, made]), "published once"
    assert len(journals(shop.places.audit)) == 2, "the first night and this one"
    assert len(shop.last.content["resumed"]) == len(STEPS)
    assert shop.night()[0] == 11, "the next night is a new one"


def test_a_version_that_has_passed_and_is_not_current_after_a_kill_becomes_current(shop: Shop) -> None:
    before = shop.current
    killed(shop, "pointer")
    assert shop.current == before
    (made,) = [version for version in versions(shop.store) if version > before]
    assert shop.night()[0] == 0
    assert (shop.current, versions(shop.store)) == (made, [before, made])
    verify(shop.store / VERSIONS / made)
    logged = json.loads((shop.store / "audit.jsonl").read_text().splitlines()[-1])
    assert (logged["action"], logged["version"], logged["former"]) == ("publish", made, before)


def test_a_refused_night_that_is_cut_off_stays_refused(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shop.current

    def cut(*_: object) -> None:
        raise KilledError

    lost = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("gone")).otherwise("item_id")
    shop.write(shop.log(FIRST + 2).with_columns(lost.alias("item_id")))
    with monkeypatch.context() as patch:
        patch.setattr("lifecycle.retrain.command.retain_step", cut)
        with pytest.raises(KilledError):
            shop.night()
    assert (shop.last.content["outcome"], shop.current) == ("refused", before)
    assert shop.night()[0] == 10


def test_a_kill_inside_training_goes_on_from_its_checkpoint(shop: Shop) -> None:
    before = shop.current
    process = start(shop, "nowhere")
    deadline = time.monotonic() + 200
    while not list(shop.places.runs.glob("*/checkpoints/stage_two*/*")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert shop.current == before
    code, lines = shop.night()
    assert code == 0
    assert any(line.startswith("text encoder: nothing changed, keeping ") for line in lines)
    assert shop.current > before


def test_a_killed_process_leaves_no_lock(shop: Shop) -> None:
    process = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, time; from pathlib import Path; from lifecycle.retrain.lock import run_lock\n"
            "with run_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)",
            str(shop.places.lock),
        ],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with (
        pytest.raises(LockedError, match=f"another run holds .*: process {process.pid} on "),
        run_lock(shop.places.lock),
    ):
        pass
    process.kill()
    process.communicate()
    with run_lock(shop.places.lock):
        pass


def test_a_signal_to_end_leaves_the_run_open_for_the_next_call(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shop.current
    with monkeypatch.context() as patch:
        patch.setitem(STEPS, "train", lambda night: signal.raise_signal(signal.SIGTERM))
        code, lines = shop.night()
    assert code == 128 + signal.SIGTERM
    assert lines[-1] == f"retrain: interrupted; the next call resumes run {shop.last.run}; {shop.last.path}"
    assert shop.last.open
    assert len(shop.last.content["interrupted"]) == 1
    assert shop.current == before
    assert shop.night()[0] == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("settings", "the settings have changed"),
        ("tables", "the tables have changed"),
        ("age", "it began more than retrain.resume_hours=0 ago"),
    ],
)
def test_a_run_whose_inputs_do_not_hold_any_more_is_not_resumed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, change: str, reason: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(STEPS, "check", lambda night: signal.raise_signal(signal.SIGTERM))
        shop.night(resume_hours=0.0 if change == "age" else 12.0)
        interrupted = shop.last
        if change == "tables":
            shop.until(FIRST + 3)
        shop.night(
            resume_hours=0.0 if change == "age" else 12.0, **({"seed": 1} if change == "settings" else {})
        )
    found = next(j for j in journals(shop.places.audit) if j.run == interrupted.run)
    assert (found.content["outcome"], found.content["exit_code"]) == ("abandoned", 1)
    assert found.content["reason"] == f"interrupted, and not resumed: {reason}"
    assert shop.last.run != interrupted.run
    assert shop.last.open


def test_a_disk_that_is_full_is_a_line_and_the_next_call_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shop.current

    def full(journal: Journal) -> None:
        raise OSError(28, "No space left on device", str(journal.path))

    def train(night: Night) -> dict[str, Any]:
        monkeypatch.setattr(Journal, "save", full)
        raise OSError(28, "No space left on device", "weights")

    monkeypatch.setitem(STEPS, "train", train)
    code, lines = shop.night()
    monkeypatch.undo()
    assert code == 1
    assert lines[-1].startswith("retrain: fault: No space left on device (")
    assert shop.last.open
    assert shop.current == before
    code, lines = shop.night()
    assert code == 0
    assert lines[0].endswith("interrupted after: collect, prepare, check, plan")


def test_a_work_directory_that_cannot_be_written_is_bad_input_with_its_path(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    with (
        pytest.raises(InputError, match=f"work_dir: cannot write {taken}/retrain/lock"),
        run_lock(taken / "retrain" / "lock"),
    ):
        pass
