from __future__ import annotations

from ranking.evaluation.page.summary import distrust, headline, summary
from tests.ranking.evaluation.page.made_up import a_result

ASKED = (
    "900 users of the test window each got one list of 10 out of all 1,000 items, made from their history "
    "alone, with items they already had left out of the lists; measured is how much of the 1,200 choices "
    "that followed is in it."
)


def test_a_clear_win_with_its_parts_and_losses() -> None:
    losses = {
        "all": {
            "lost": 960,
            "per_100_lost": {
                "filtered": 0.0, "never_proposed": 61.4, "approximate_search": 0.0, "ranked_away": 38.0,
                "reranked_away": 0.6,
            },
        }
    }  # fmt: skip
    gaps = {
        "head_items": (0.06, 0.04, 0.08), "cold_items": (0.09, 0.01, 0.17),
        "tail_items": (-0.03, -0.05, -0.01), "history_0": (0.5, 0.4, 0.6),
    }  # fmt: skip
    text = summary(a_result(losses={"test": losses}), gaps)
    assert text == (
        f"{ASKED} own finds 20.0% (18.0 to 22.0 with 95% confidence), 5.0 points more than the strongest "
        "baseline, knn (15.0%; difference 3.0 to 7.0, p < .001). It is ahead of knn most on cold items "
        "and head items, and behind on tail items. Of 100 choices that it misses, 61 were never proposed "
        "by any source and "
        "38 were proposed but ranked below the tenth place."
    )


def test_a_difference_that_may_be_chance_is_called_so() -> None:
    result = a_result()
    test = result["significance"]["test"]["knn"]["recall@10"]
    test |= {"p_value": 0.03, "p_holm": 0.09, "low": -0.01}
    assert "the difference of 5.0 points (-1.0 to 7.0) may be chance." in summary(result, {})
    assert "not distinguishable" in headline(result), "by the corrected p-value"
    del test["p_holm"]
    assert "p = 0.030" in headline(result), "a result without corrections has its raw p-value"


def test_a_loss_is_said_and_so_is_a_missing_baseline() -> None:
    result = a_result()
    result["test"]["knn"]["recall@10"] = 0.25
    result["significance"]["test"]["knn"]["recall@10"] |= {"difference": -0.05, "low": -0.07, "high": -0.03}
    text = summary(result, {"head_items": (-0.05, -0.07, -0.03)})
    assert "5.0 points fewer than the strongest baseline, knn" in text
    assert "No part of the data shows it ahead of knn, and behind on head items." in text
    del result["test"]["knn"]
    assert "no baseline was measured beside it" in summary(result, {})


def test_shortcuts_and_serious_findings_are_cautions() -> None:
    shortcuts = {"same_day": 0.44, "targets_known_successors": 0.31, "in_history": 0.6}
    result = a_result(shortcuts={"test": shortcuts})
    lint = [
        {"severity": "serious", "title": "41 targets are in training"},
        {"severity": "note", "title": "x"},
    ]
    found = distrust(result, lint)
    assert found[0] == "The data linter has 1 serious finding(s): 41 targets are in training."
    assert found[1].startswith("44% of the choices fall on the day of the last known event")
    assert found[2].startswith("31% of the choices had followed the last item")
    assert len(found) == 3, "excluded items cannot be repeated"
    result["protocol"]["exclude_seen"] = False
    assert distrust(result)[-1] == "60% of the choices repeat an item of the user's own history."
    assert "Read it with care: 44%" in summary(result, {})


def test_probabilities_that_are_off_by_a_quarter_are_a_caution() -> None:
    table = {"mean_predicted": 0.0085, "mean_observed": 0.0127}
    (said,) = distrust(a_result(calibration={"test": {"click": table}}))
    assert said.startswith("The probability of a click averages 0.85% on the listed items, of which 1.27%")
    table["mean_observed"] = 0.0106
    assert distrust(a_result(calibration={"test": {"click": table}})) == []
    assert distrust(a_result(calibration={"test": None})) == []


def test_small_and_validation_windows_are_cautions_and_nothing_is_said_without_one() -> None:
    assert distrust(a_result()) == []
    assert "Read it with care" not in summary(a_result(), {})
    result = a_result(valid=a_result()["test"])
    result["protocol"] |= {"measured": "valid", "queries": {"valid": 499}}
    few, valid = distrust(result)
    assert few.startswith("499 users are few")
    assert valid.startswith("This is the validation window")


def test_the_same_day_share_of_an_earlier_version_is_that_of_its_slice() -> None:
    result = a_result()
    result["slices"]["same_day_as_previous"] = {"queries": 600, "targets": 600, "about": "", "systems": {}}
    assert distrust(result)[0].startswith("50% of the choices fall on the day")
