"""Composition of a command's configuration, with errors of one line."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.commands import TABLE
from conf.composition.override_errors import readable, refuse_unknown_keys
from conf.composition.overrides import split_overrides
from conf.encoders import TextEncoderConfig, UserEncoderConfig
from conf.engines.milvus import RetrievalConfig
from conf.errors import InputError
from conf.schema import (
    CandidateConfig,
    DataConfig,
    EvaluationConfig,
    IndexConfig,
    RankerConfig,
    RerankConfig,
    SplitConfig,
    TrackerConfig,
)
from conf.sweep_schema import SweepConfig

GROUPS: dict[str, type] = {
    "data": DataConfig,
    "split": SplitConfig,
    "text_encoder": TextEncoderConfig,
    "user_encoder": UserEncoderConfig,
    "index": IndexConfig,
    "candidates": CandidateConfig,
    "ranker": RankerConfig,
    "rerank": RerankConfig,
    "evaluation": EvaluationConfig,
    "tracker": TrackerConfig,
    "retrieval": RetrievalConfig,
}


def writable(schema: type) -> DictConfig:
    """Turn a frozen dataclass into a config node that YAML files and overrides can set.

    Keys and types are still checked; only open mappings (`data.columns`) accept new keys.
    """
    node = OmegaConf.structured(schema)

    def open_up(part: DictConfig) -> None:
        OmegaConf.set_readonly(part, None)
        for key in part:
            child = part._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                if child._metadata.object_type is dict:
                    OmegaConf.set_struct(child, False)
                open_up(child)

    open_up(node)
    return node  # type: ignore[no-any-return]


def register(command: str) -> None:
    """Register a command's schema and those of the groups in Hydra's config store, for the defaults lists."""
    _register_groups()
    _register_root(TABLE[command].schema)


@cache
def _register_root(schema: type) -> None:
    ConfigStore.instance().store(name=f"{schema.__name__}_schema", node=writable(schema))


@cache
def _register_groups() -> None:
    store = ConfigStore.instance()
    for group, schema in GROUPS.items():
        store.store(group=group, name="schema", node=writable(schema))
    Plugins.instance()  # register other plug-ins first, as the last one of a name wins
    store.store(group="hydra/sweeper", name="optuna", node=writable(SweepConfig))
    # Hydra copies all its sources whenever it lists a group, for `--help` more than a hundred times.
    # The store is a singleton, whose `load` returns copies.
    ConfigStore.__deepcopy__ = _itself  # type: ignore[attr-defined]


def _itself(store: ConfigStore, memo: dict[int, object]) -> ConfigStore:
    return store


def to_typed(config: DictConfig) -> Any:  # noqa: ANN401 - one of the root types
    """Turn a composed config into its frozen dataclass, running the range checks.

    Raises:
        InputError: a key that the type does not have, or a value that is out of range or missing.

    """
    refuse_unknown_keys(config)
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise readable(error) from error


def compose_command(command: str, overrides: list[str]) -> Any:  # noqa: ANN401 - one of the root types
    """Return the typed configuration of a command.

    Raises:
        InputError: unknown key, wrong type, unknown option or value out of range, in one line.

    """
    register(command)
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        try:
            usual, other = split_overrides(overrides)
            config = compose(command, overrides=usual)
            for key, value in other.items():
                OmegaConf.update(config, key, value)
        except (HydraException, OmegaConfBaseException) as error:
            raise readable(error, overrides) from error
    return to_typed(config)


def read_config(schema: type, path: Path, **changes: object) -> Any:  # noqa: ANN401 - the schema's type
    """Return the typed configuration in a YAML file that has every setting, as a bundle keeps it.

    Args:
        schema: its root type.
        path: the file.
        changes: settings of the root to replace.

    Raises:
        InputError: the file cannot be read, or has settings that this release does not.

    """
    try:
        return to_typed(OmegaConf.merge(writable(schema), OmegaConf.load(path), changes))  # type: ignore[arg-type]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise InputError(f"{path}: made by another release ({str(error).splitlines()[0]})") from error
