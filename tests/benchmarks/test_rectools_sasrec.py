from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.rectools_sasrec import REQUIREMENTS, agree, arrays_of, first_users, read_options, training
from conf.errors import InputError
from conf.schema import SplitConfig, SplitKind
from features.splits import make_split
from tests.synthetic import START, make_dataset


def test_training_and_histories_hold_nothing_that_is_asked_for() -> None:
    rows = [("u", item, "purchase", START + n) for n, item in enumerate("abcd")]
    rows += [("v", item, "purchase", START + n) for n, item in enumerate("dcba")]
    dataset = make_dataset(rows, list("abcde"))
    split = make_split(dataset, SplitConfig(kind=SplitKind.leave_one_out), [])
    train = training(dataset, split.train_end, 0)
    assert train["train_user"].tolist() == [0, 0, 1, 1] and train["train_item"].tolist() == [0, 1, 3, 2]
    test = arrays_of("test", dataset, split.test)
    assert test["test_history_user"].tolist() == [0, 0, 0, 1, 1, 1]
    assert test["test_history_item"].tolist() == [0, 1, 2, 3, 2, 1], "validation belongs to the history"
    assert test["test_target_item"].tolist() == [3, 0]
    valid = arrays_of("valid", dataset, split.valid)
    assert valid["valid_history_item"].tolist() == [0, 1, 3, 2] and valid["valid_target_item"].tolist() == [
        2,
        1,
    ]


def test_a_subset_is_of_the_same_users_on_both_sides() -> None:
    rows = [(user, item, "purchase", START + n) for user in "uvw" for n, item in enumerate("abc")]
    dataset = make_dataset(rows, list("abc"))
    split = make_split(dataset, SplitConfig(kind=SplitKind.leave_one_out), [])
    assert first_users(split.test, 2).user.tolist() == [0, 1] and len(first_users(split.test, 0)) == 3
    assert set(training(dataset, split.train_end, 2)["train_user"]) == {0, 1}


def test_two_measurements_must_agree() -> None:
    assert agree({"recall@10": 0.5, "map@10": 0.1}, {"recall@10": np.float64(0.5)}) == 0.0
    with pytest.raises(InputError, match=r"differently, by 0\.1"):
        agree({"recall@10": 0.5}, {"recall@10": 0.6})


def test_options_stand_beside_overrides_and_every_requirement_is_exact() -> None:
    options, overrides = read_options(["--epochs", "2", "split=leave_one_out", "--loss", "BCE", "work_dir=w"])
    assert (options.epochs, options.loss) == (2, "BCE") and overrides == ["split=leave_one_out", "work_dir=w"]
    lines = [line for line in Path(REQUIREMENTS).read_text().splitlines() if not line.startswith("#")]
    assert lines and all(re.fullmatch(r"[\w.\[\]-]+==[\w.]+", line) for line in lines)
