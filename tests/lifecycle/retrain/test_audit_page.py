"""The pages of the audit files: every outcome is shown, data are no markup, no secret is in them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conf.lifecycle import RetrainConfig
from lifecycle.retrain.audit_page import TITLES, duration, render_run, write_pages
from lifecycle.retrain.journal import Journal, journals
from lifecycle.retrain.outcomes import Outcome
from tests.lifecycle.retrain.conftest import FIRST, NEW_ITEMS_ONLY, Shop


def test_a_night_is_shown_with_its_data_checks_gate_and_settings(first_night: Path, bert: Path) -> None:
    shop = Shop.at(first_night, bert)
    page = shop.last.path.with_suffix(".html").read_text()
    steps = shop.last.steps
    assert 'Published <span class="soft">(exit code 0)</span>' in page
    assert f"{shop.current} is current, before it none" in page
    assert f"<dd>{steps['prepare']['events']} events before" not in page
    assert f"{steps['plan']['training_events']} events before {steps['plan']['window_start']}" in page
    assert f"{steps['plan']['queries']} shoppers and their {steps['plan']['targets']} choices" in page
    assert "held: ndcg@10 loses at most 0: " in page
    assert "<dt>retrain.min_new_events</dt><dd>5</dd>" in page
    assert page.count("<rect") == len(steps["prepare"]["events_by_day"])
    for check in steps["check"]["checks"]:
        assert check["name"].replace("_", " ") in page
    assert "http" not in page.replace("http://", "", 0).partition("<section>")[0], "nothing is fetched"


def test_a_refused_night_has_both_models_and_is_in_the_index(shop: Shop) -> None:
    assert shop.night(**NEW_ITEMS_ONLY)[0] == 10
    page = shop.last.path.with_suffix(".html").read_text()
    row = shop.last.steps["publish"]["comparison"]["metrics"]["ndcg@10"]
    assert 'Refused <span class="soft">(exit code 10)</span>' in page
    for check in shop.last.steps["publish"]["checks"]:
        assert check["name"].replace("_", " ") in page
    assert f'>{row["a"]:.4f}</td><td class="n">{row["b"]:.4f}</td>' in page
    assert '<li class="broken">broken: ndcg@10 loses at most 5%: ' in page
    index = (shop.places.audit / "index.html").read_text()
    newest, first = (journal.run for journal in reversed(journals(shop.places.audit)))
    assert index.index(f"{newest}.html") < index.index(f"{first}.html")
    assert "2 runs, 1 published" in index
    shop.until(FIRST)


def begun(folder: Path, **settings: Any) -> Journal:
    return Journal.begin(folder, replace(RetrainConfig(), **settings))


@pytest.mark.parametrize("outcome", [None, *Outcome])
def test_a_run_without_any_step_has_a_page_whatever_its_outcome(
    tmp_path: Path, outcome: Outcome | None
) -> None:
    journal = begun(tmp_path)
    if outcome is None:
        journal.save()
    else:
        journal.end(outcome, "the disk <script>alert(1)</script> is full")
    page = write_pages(journal).read_text()
    assert TITLES[outcome.value if outcome else None] in page
    assert "<script>" not in page
    assert journal.open is (outcome is None)


def test_credentials_of_addresses_are_in_no_file(tmp_path: Path) -> None:
    journal = begun(tmp_path, state="redis://user:hunter2@redis.internal:6379/0")
    journal.note("traceback", "OSError: rediss://:hu@nter2@redis.internal: hu/nter2")
    journal.finish_step("an", {"url": "redis://:hu@nter2@redis.internal redis://:/nter2@host"}, 1.0)
    journal.finish_step("other", {"why": "redis://:hunter2@redis.internal does not answer"}, 1.0)
    journal.end(Outcome.bad_input, "state: redis://user:hunter2@redis.internal:6379/0 does not answer")
    write_pages(journal)
    for path in tmp_path.iterdir():
        text = path.read_text()
        assert "hunter2" not in text, path
        assert "nter2@" not in text, "a password with an @ or a /"
    assert "redis://***@redis.internal:6379/0" in journal.path.read_text()


def test_a_file_that_is_no_journal_is_passed_over(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    journal.end(Outcome.refused, "why")
    (tmp_path / "20200101T000000Z.json").write_text("{")
    other = {**json.loads(journal.path.read_text()), "format_version": 99}
    (tmp_path / "20200102T000000Z.json").write_text(json.dumps(other))
    assert [found.run for found in journals(tmp_path)] == [journal.run]


def test_two_runs_within_a_second_have_different_names(tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        journal = begun(tmp_path)
        journal.save()
        names.append(journal.run)
    assert names == sorted(set(names))


def test_durations_are_in_words() -> None:
    assert [duration(s) for s in (None, 0.25, 42.4, 185, 7800)] == [
        "–", "0.2 s", "42 s", "3 min 5 s", "2 h 10 min",
    ]  # fmt: skip


def test_a_page_of_an_open_run_says_so(tmp_path: Path) -> None:
    assert "in progress, or was interrupted" in render_run(begun(tmp_path).content)
