from __future__ import annotations

import copy
from dataclasses import fields
from importlib.resources import files

import pytest
import yaml  # type: ignore[import-untyped]
from hydra.core.config_store import ConfigStore

from conf.clients import RecommendConfig
from conf.commands import TABLE
from conf.composition.compose import GROUPS, compose_command
from conf.encoders import Pooling, TextEncoderConfig, UserEncoderConfig
from conf.errors import InputError
from conf.schema import Adapter, PipelineConfig, SplitKind
from conf.serving import ServeConfig

CONF = files("conf")
PACKAGES = ("composition", "engines")
"""Folders of Python modules; the others are groups of settings."""
FOLDERS = sorted(
    f.name for f in CONF.iterdir() if f.is_dir() and f.name not in PACKAGES and not f.name.startswith("_")
)


def options(group: str) -> list[str]:
    return sorted(
        f.name.removesuffix(".yaml") for f in CONF.joinpath(group).iterdir() if f.name.endswith(".yaml")
    )


def fail(command: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        compose_command(command, list(overrides))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("command", sorted(TABLE))
def test_every_command_composes_to_its_type_with_the_schemas_defaults(command: str) -> None:
    config = compose_command(command, [])
    schema = TABLE[command].schema
    assert type(config) is schema
    if not issubclass(schema, PipelineConfig):
        assert config == schema()


def test_composing_copies_no_schema_but_the_one_it_loads() -> None:
    """Hydra copies its sources, and all schemas with them, for every group that `--help` lists."""
    compose_command("health", [])
    store = ConfigStore.instance()
    assert copy.deepcopy(store) is store
    assert store.load("HealthConfig_schema.yaml").node is not store.load("HealthConfig_schema.yaml").node


def test_evaluate_is_composed_as_the_pipeline_is() -> None:
    """Its file repeats the pipeline's list, because a schema cannot be extended once it is composed."""
    lists = [
        yaml.safe_load((CONF / f"{name}.yaml").read_text())["defaults"] for name in ("pipeline", "evaluate")
    ]
    assert lists[1] == ["EvaluateConfig_schema", *lists[0][1:]]
    arguments = ["split=leave_one_out", "experiment=quick"]
    run, evaluate = compose_command("run", arguments), compose_command("evaluate", arguments)
    assert all(getattr(evaluate, field.name) == getattr(run, field.name) for field in fields(PipelineConfig))


def test_every_command_has_its_file_and_every_file_is_a_command_or_a_part_of_one() -> None:
    names = {f.name.removesuffix(".yaml") for f in CONF.iterdir() if f.name.endswith(".yaml")}
    assert names == set(TABLE) | {"pipeline", "hydra_settings"}


@pytest.mark.parametrize("group", [f for f in FOLDERS if f not in ("experiment", "sweep")])
def test_every_option_of_every_group_composes(group: str) -> None:
    assert group in GROUPS
    assert options(group)
    for option in options(group):
        assert isinstance(compose_command("run", [f"{group}={option}"]), PipelineConfig)


@pytest.mark.parametrize("experiment", options("experiment"))
@pytest.mark.parametrize("command", ["run", "evaluate"])
def test_every_experiment_composes_and_changes_something(command: str, experiment: str) -> None:
    assert compose_command(command, [f"experiment={experiment}"]) != compose_command(command, [])


@pytest.mark.parametrize("adapter", list(Adapter))
def test_every_adapter_is_an_option_of_its_own_name(adapter: Adapter) -> None:
    assert compose_command("prepare", [f"data={adapter.value}"]).data.adapter is adapter


@pytest.mark.parametrize("kind", list(SplitKind))
def test_every_split_is_an_option_of_its_own_name(kind: SplitKind) -> None:
    assert compose_command("run", [f"split={kind.value}"]).split.kind is kind


def test_the_default_files_change_no_default() -> None:
    config = compose_command("run", [])
    assert config.text_encoder == TextEncoderConfig()
    assert config.user_encoder == UserEncoderConfig()
    assert config == PipelineConfig()


def test_an_override_wins_over_an_experiment() -> None:
    config = compose_command("run", ["experiment=smoke", "user_encoder.epochs=7"])
    assert config.user_encoder.epochs == 7
    assert config.text_encoder.max_steps == 4


def test_overrides_take_their_types() -> None:
    config = compose_command(
        "run",
        [
            "seed=3",
            "data.items=[a.csv,b.csv]",
            "data.columns.user_id=customer",
            "text_encoder.pooling=cls",
            "data.event_weights.click=0.5",
            "split.test_start=2024-05-01",
            "evaluation.exclude_seen=true",
            "evaluation.ks=[5]",
        ],
    )
    assert config.seed == 3
    assert config.data.items == ["a.csv", "b.csv"]
    assert config.data.columns == {"user_id": "customer"}
    assert config.data.event_weights == {"click": 0.5}
    assert config.text_encoder.pooling is Pooling.cls
    assert config.split.test_start == "2024-05-01", "a date stays text"
    assert config.evaluation.exclude_seen is True
    assert config.evaluation.ks == [5]


def test_configurations_are_frozen() -> None:
    config = compose_command("run", [])
    with pytest.raises(AttributeError):
        config.seed = 1
    with pytest.raises(AttributeError):
        config.split.test_fraction = 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.item=x", "unknown config key 'data.item'; did you mean 'items'?"),
        ("usr_encoder.dim=3", "unknown config key 'usr_encoder.dim'; did you mean 'user_encoder'?"),
        ("text_encoder.max_step=3", "unknown config key 'text_encoder.max_step'; did you mean 'max_steps'?"),
        (
            "text_encoder.devices=2",
            "is now devices, for the towers too: write devices=0 for every GPU",
        ),
        ("data.filters.k_core=3", "unknown config key 'data.filters.k_core'; did you mean 'kcore'?"),
        ("zzz=1", "unknown config key 'zzz'"),
        ("+zzz=1", "unknown config key 'zzz'"),
        ("+data.zzz=1", "unknown config key 'data.zzz'"),
        ("+data.item=x", "unknown config key 'data.item'; did you mean 'items'?"),
        ("evaluation.ks=[a]", "evaluation.ks=[a]: Value 'a' of type 'str' could not be converted to Integer"),
        ("data.event_weights.click=abc", "data.event_weights.click=abc: Value 'abc'"),
        ("seed.x=3", "seed.x=3: Value '{}' of type 'dict' could not be converted to Integer"),
        ("~data.items.x", "Could not delete from config. 'data.items.x' does not exist."),
        ("seed=abc", "seed=abc: Value 'abc' of type 'str' could not be converted to Integer"),
        ("ranker.enabled=perhaps", "ranker.enabled=perhaps: Value 'perhaps' is not a valid bool (type str)"),
        (
            "split.kind=odd",
            "split.kind=odd: Invalid value 'odd', expected one of [leave_one_out, global_time]",
        ),
        ("data=movielen", "did you mean 'movielens'?"),
        ("split=globaltime", "no 'globaltime' for split (there are: global_time, leave_one_out)"),
        ("experiment=nope", "no 'nope' for experiment (there are: "),
        ("data.items=[a", "cannot read the arguments"),
        ("data.items", "cannot read the arguments"),
    ],
)
def test_a_wrong_override_is_one_line_that_names_it(override: str, message: str) -> None:
    assert message in fail("run", override)


def test_keys_of_another_command_are_unknown() -> None:
    assert fail("serve", "split.kind=leave_one_out").startswith("unknown config key 'split.kind'")
    assert fail("recommend", "port=3").startswith("unknown config key 'port'")
    assert fail("serve", "prot=3") == "unknown config key 'prot'; did you mean 'port'?"


def test_commands_of_a_server_take_their_keys() -> None:
    assert compose_command("serve", ["port=0", "privacy.hash_users=true"]) == ServeConfig(
        port=0, privacy=type(ServeConfig().privacy)(hash_users=True)
    )
    config = compose_command("recommend", ["items=[a,b]", "intent='garden party'", "k=3"])
    assert config == RecommendConfig(items=["a", "b"], intent="garden party", k=3)


def test_composing_twice_in_a_process_gives_the_same() -> None:
    first = compose_command("run", ["seed=1"])
    fail("run", "zzz=1")
    assert compose_command("run", ["seed=1"]) == first
    assert compose_command("run", []).seed == 0


def test_a_key_that_is_gone_says_what_has_taken_its_place() -> None:
    message = "config key 'index.gpu' is gone: set device=cuda, device=cpu or device=auto"
    assert fail("run", "index.gpu=true") == message
