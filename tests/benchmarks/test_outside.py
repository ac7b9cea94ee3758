from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks.outside import Outsider, agree, arrays_of, first_users, training
from benchmarks.recbole_models import command as recbole_models
from benchmarks.rectools_sasrec import command as rectools_sasrec
from conf.errors import InputError
from conf.schema import SplitConfig, SplitKind
from features.data.splits import make_split
from tests.synthetic import START, make_dataset


def test_training_and_histories_hold_nothing_that_is_asked_for() -> None:
    rows = [("u", item, "purchase", START + n) for n, item in enumerate("abcd")]
    rows += [("v", item, "purchase", START + n) for n, item in enumerate("dcba")]
    dataset = make_dataset(rows, list("abcde"))
    split = make_split(dataset, SplitConfig(kind=SplitKind.leave_one_out), [])
    train = training(dataset, split.train_end, 0)
    assert train["train_user"].tolist() == [0, 0, 1, 1]
    assert train["train_item"].tolist() == [0, 1, 3, 2]
    test = arrays_of("test", dataset, split.test)
    assert test["test_history_user"].tolist() == [0, 0, 0, 1, 1, 1]
    assert test["test_history_item"].tolist() == [0, 1, 2, 3, 2, 1], "validation belongs to the history"
    assert test["test_target_item"].tolist() == [3, 0]
    valid = arrays_of("valid", dataset, split.valid)
    assert valid["valid_history_item"].tolist() == [0, 1, 3, 2]
    assert valid["valid_target_item"].tolist() == [
        2,
        1,
    ]


def test_a_subset_is_of_the_same_users_on_both_sides() -> None:
    rows = [(user, item, "purchase", START + n) for user in "uvw" for n, item in enumerate("abc")]
    dataset = make_dataset(rows, list("abc"))
    split = make_split(dataset, SplitConfig(kind=SplitKind.leave_one_out), [])
    assert first_users(split.test, 2).user.tolist() == [0, 1]
    assert len(first_users(split.test, 0)) == 3
    assert set(training(dataset, split.train_end, 2)["train_user"]) == {0, 1}


def test_two_measurements_must_agree() -> None:
    assert agree({"recall@10": 0.5, "map@10": 0.1}, {"recall@10": np.float64(0.5)}) == 0.0
    with pytest.raises(InputError, match=r"differently, by 0\.1"):
        agree({"recall@10": 0.5}, {"recall@10": 0.6})


def test_options_stand_beside_overrides() -> None:
    options, overrides = rectools_sasrec.read_options(
        ["--epochs", "2", "split=leave_one_out", "--loss", "BCE"]
    )
    assert (options.epochs, options.loss) == (2, "BCE")
    assert overrides == ["split=leave_one_out"]
    options, overrides = recbole_models.read_options(
        ["--model", "FDSA", "--set", "hidden_size=128", "--set", "pooling_mode=mean", "work_dir=w"]
    )
    assert (options.model, options.epochs, overrides) == ("FDSA", 300, ["work_dir=w"])
    assert options.set == {"hidden_size": 128, "pooling_mode": "mean"}


@pytest.mark.parametrize("outsider", [rectools_sasrec.RECTOOLS, recbole_models.RECBOLE])
def test_an_outsider_has_a_worker_and_exact_requirements(outsider: Outsider) -> None:
    assert outsider.worker.is_file()
    lines = [line for line in outsider.requirements.read_text().splitlines() if not line.startswith("#")]
    assert lines
    assert all(re.fullmatch(r"[\w.\[\]-]+==[\w.]+", line) for line in lines)
