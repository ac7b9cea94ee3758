"""How a run is closed: what is deleted, said, and compared with by the next one, whatever its outcome."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from conf.errors import InputError
from lifecycle.checks.profile import load_profile, save_profile
from lifecycle.retrain.checking import PROFILE
from lifecycle.retrain.command import Step, retrain
from lifecycle.retrain.night import Night
from lifecycle.retrain.outcomes import EndOfRunError, Outcome
from lifecycle.retrain.watching import ROLLING_BACK
from tests.lifecycle.retrain.conftest import Shop


def only(monkeypatch: pytest.MonkeyPatch, **steps: Step) -> None:
    """Make these the steps of a run."""
    monkeypatch.setattr("lifecycle.retrain.command.STEPS", steps)


def raising(error: Exception) -> Step:
    """Return a step that writes something into the run's folder and raises."""

    def step(night: Night) -> dict[str, Any]:
        night.folder.mkdir(parents=True, exist_ok=True)
        raise error

    return step


@pytest.mark.parametrize("error", [RuntimeError("no memory"), InputError("state: it does not answer")])
def test_runs_that_fail_night_after_night_do_not_fill_the_disk(
    new_shop: Shop, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    only(monkeypatch, collect=raising(error))
    for _ in range(5):
        if isinstance(error, InputError):
            with pytest.raises(InputError, match="it does not answer"):
                new_shop.night(keep_runs=2)
        else:
            assert new_shop.night(keep_runs=2)[0] == 1
    assert len(list(new_shop.places.runs.iterdir())) == 2
    assert len(list(new_shop.places.audit.glob("*.json"))) == 5


def test_a_pointer_to_a_version_that_is_not_there_is_bad_input_and_nothing_is_deleted(
    new_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_shop.store.mkdir(parents=True)
    (new_shop.store / "CURRENT").write_text("20250101T000000Z-000000000000\n")
    only(monkeypatch, prepare=raising(InputError("artifacts: names what is not published")))
    with pytest.raises(InputError, match="names what is not published"):
        new_shop.night()
    assert new_shop.last.content["outcome"] == "bad_input"


@pytest.mark.parametrize("broken", [False, True])
def test_the_data_of_a_published_run_are_compared_with_unless_its_version_broke_a_guard(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    accepted = load_profile(shop.places.profile)
    assert accepted is not None
    for path in shop.places.profile.iterdir():
        path.unlink()

    def publish(night: Night) -> dict[str, Any]:
        save_profile(accepted, night.folder / PROFILE)
        return {"version": shop.current, "before": None}

    def watch(night: Night) -> dict[str, Any]:
        if broken:
            night.journal.note(ROLLING_BACK, "broken: errors")
        raise EndOfRunError(Outcome.fault, "shop1:1 does not answer")

    only(monkeypatch, publish=publish, watch=watch)
    assert shop.night()[0] == 1
    assert (load_profile(shop.places.profile) is None) is broken


def test_a_run_that_another_publication_has_overtaken_says_so(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(
        monkeypatch,
        publish=lambda night: {"version": "v2", "before": "v1"},
        watch=lambda night: {"watched": True, "superseded_by": "v3"},
    )
    code, lines = shop.night()
    assert code == 0
    assert lines[-1].startswith("retrain: published: v2 was current until v3 became so, before it v1; ")


def test_bad_input_after_the_publication_does_not_deny_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(
        monkeypatch,
        publish=lambda night: {"version": "v2", "before": "v1"},
        watch=raising(InputError("retrain.watch.tls.ca: no such file")),
    )
    console = Console(record=True, width=200)
    with pytest.raises(InputError, match="no such file"):
        retrain(shop.settings(), console)
    assert console.export_text().splitlines() == [f"retrain: v2 was published; {shop.last.path}"]
