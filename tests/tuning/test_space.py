from __future__ import annotations

from importlib.resources import files

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from conf.composition.compose import compose_command
from conf.errors import InputError
from features.data.pipeline_step import plain
from tuning.space import as_overrides, as_params, flatten, read_space, whole_numbers
from tuning.sweep import ready_space

READY = sorted(f.name.removesuffix(".yaml") for f in files("conf").joinpath("sweep").iterdir())


def test_hydras_sweep_syntax_becomes_ranges_and_the_rest_stays() -> None:
    space = read_space(
        [
            "a=interval(0.1,0.6)",
            "b=tag(log,interval(1e-4,1e-2))",
            "c=int(tag(log,interval(8,64)))",
            "d=range(1,8,3)",
            "e=range(0,1,0.25)",
            "f=choice([16],[64,32])",
            "g=x,'y z'",
            "seed=3",
            "experiment=smoke",
        ]
    )
    assert space.searched == {
        "a": FloatDistribution(0.1, 0.6),
        "b": FloatDistribution(1e-4, 1e-2, log=True),
        "c": IntDistribution(8, 64, log=True),
        "d": IntDistribution(1, 7, step=3),
        "e": FloatDistribution(0.0, 0.75, step=0.25),
        "f": CategoricalDistribution(["[16]", "[64,32]"]),
        "g": CategoricalDistribution(["x", "'y z'"]),
    }
    assert space.fixed == ["seed=3", "experiment=smoke"]


def test_the_last_argument_with_a_key_counts() -> None:
    assert read_space(["a=1,2", "a=3"]).fixed == ["a=3"]
    space = read_space(["a=3", "a=interval(0,1)", "a=interval(0,2)"])
    assert space.fixed == []
    assert space.searched == {"a": FloatDistribution(0.0, 2.0)}


@pytest.mark.parametrize("argument", ["a=interval(3,1)", "a=tag(log,interval(0,1))", "a=range(3,3)", "a=[1"])
def test_what_is_no_range_is_an_input_error(argument: str) -> None:
    with pytest.raises(InputError):
        read_space([argument])


def test_parameters_may_be_nested_or_dotted() -> None:
    assert flatten({"a.b": "interval(0,1)", "c": {"d": 1}}) == {"a.b": "interval(0,1)", "c.d": "1"}


def test_an_interval_of_a_whole_number_setting_is_of_whole_numbers() -> None:
    searched = read_space(["n=interval(1,8)", "x=interval(1,8)"]).searched
    assert whole_numbers(searched, {"n": 3, "x": 0.5}) == {
        "n": IntDistribution(1, 8),
        "x": FloatDistribution(1.0, 8.0),
    }


def test_the_present_settings_are_a_point_of_the_space_or_not() -> None:
    searched = read_space(["a=interval(0,1)", "b=choice([16],[64,32])", "c=choice(mean,null_)"]).searched
    assert as_params(searched, {"a": 0.5, "b": [64, 32], "c": "mean"}) == {
        "a": 0.5,
        "b": "[64,32]",
        "c": "mean",
    }
    assert as_params(searched, {"a": 1.5, "b": [64, 32], "c": "mean"}) is None
    assert as_params(searched, {"a": 0.5, "b": [8], "c": "mean"}) is None
    assert as_params(searched, {"a": None, "b": [16], "c": "mean"}) is None


@pytest.mark.parametrize("name", READY)
def test_a_ready_space_names_settings_that_exist_and_holds_the_defaults(name: str) -> None:
    space = read_space([f"{key}={value}" for key, value in ready_space(name).items()])
    assert space.fixed == []
    assert space.searched
    defaults = compose_command("run", [])
    values = {
        key: plain(getattr(getattr(defaults, key.split(".")[0]), key.split(".")[1])) for key in space.searched
    }
    now = as_params(space.searched, values)
    assert now is not None
    assert compose_command("run", as_overrides(now)) == defaults
    assert compose_command("run", [f"sweep={name}"]) == defaults
