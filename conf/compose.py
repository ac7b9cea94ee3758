"""Composing a command's configuration, with errors that fit on a line."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from functools import cache
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.commands import TABLE
from conf.encoders import TextEncoderConfig, UserEncoderConfig
from conf.errors import InputError, closest
from conf.overrides import split_overrides
from conf.schema import (
    CandidateConfig,
    DataConfig,
    EvaluationConfig,
    IndexConfig,
    RankerConfig,
    RerankConfig,
    SplitConfig,
)
from conf.sweep_schema import SweepConfig

MOVED = {"text_encoder.devices": "is now devices, for the towers too: write devices=0 for every GPU"}
"""Keys that have become others, and what to write instead."""

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
}

_REMOVED = {"index.gpu": "set device=cuda, device=cpu or device=auto"}
"""Keys of former versions, and what has taken their place."""


def writable(schema: type) -> DictConfig:
    """Turn a frozen dataclass into a config node that YAML files and overrides may still fill.

    Keys and types stay checked; only mappings that are open by design (`data.columns`) take new keys.
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


@cache
def register() -> None:
    """Put every schema where the YAML files' defaults lists look for it."""
    store = ConfigStore.instance()
    for schema in {command.schema for command in TABLE.values()}:
        store.store(name=f"{schema.__name__}_schema", node=writable(schema))
    for group, schema in GROUPS.items():
        store.store(group=group, name="schema", node=writable(schema))
    Plugins.instance()  # other plug-ins register themselves now: the last one of a name counts
    store.store(group="hydra/sweeper", name="optuna", node=writable(SweepConfig))


def to_typed(config: DictConfig) -> Any:  # noqa: ANN401 - one of the root types
    """Turn a composed config into its frozen dataclass, running the range checks.

    Raises:
        InputError: when a value is out of range or missing.

    """
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise InputError(_one_line(error, config)) from error
    except FrozenInstanceError as error:  # a key that `+` put where the dataclass has none
        raise InputError(f"unknown config key {str(error).rpartition(' ')[2]}") from error


def _meant(config: DictConfig, path: str) -> str:
    """Suggest a key for the first part of a dotted path that is not there."""
    node: Any = config
    for part in path.split("."):
        if not isinstance(node, DictConfig):
            break
        if part not in node:
            return closest(part, [str(key) for key in node])
        node = node.get(part)
    return ""


def _one_line(error: Exception, config: DictConfig) -> str:
    """Say what is wrong with an override in one line."""
    text = str(error)
    cause = str(error.__cause__ or "")
    for old, hint in MOVED.items():
        if re.search(rf"\b{re.escape(old)}\b", f"{text} {cause}"):
            return f"the key {old} {hint}"
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        path = unknown.group(1)
        if path in _REMOVED:
            return f"config key '{path}' is gone: {_REMOVED[path]}"
        if "not in struct" in cause or "not in '" in cause:
            return f"unknown config key '{path}'{_meant(config, path)}"
        return f"cannot set '{path}': {cause.splitlines()[0] if cause else text.splitlines()[0]}"
    merging = re.search(r"Error merging override (.+)", text)
    if merging:
        return f"{merging.group(1)}: {cause.splitlines()[0]}"
    if "override_grammar" in text:
        said = text.splitlines()[0].removeprefix("LexerNoViableAltException: ")
        return (
            f"cannot read the arguments ({said}); write key=value, and put a value that holds one of "
            "< > = , [ ] ( ) in quotes of its own: 'filter=\"price < 5\"'"
        )
    missing = re.search(
        r"Could not find '([^']+)'\s+Available options in '[^']+':\s+((?:\s*\S+\n)+?)Config search", text
    )
    if missing:
        group, _, name = missing.group(1).partition("/")
        options = [o for o in missing.group(2).split() if o != "schema"]
        return f"no '{name}' for {group} (there are: {', '.join(options)}){closest(name, options)}"
    return " ".join(text.split())


def in_one_line(error: HydraException | OmegaConfBaseException, command: str) -> InputError:
    """Turn what Hydra raised in a sweep into a readable error, and leave Hydra's own state as it is."""
    hydra = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("conf", version_base="1.3"):
            known = compose(command, overrides=["hydra/sweeper=optuna"], return_hydra_config=True)
            return InputError(_one_line(error, known))
    finally:
        GlobalHydra.instance().hydra = hydra


def compose_command(command: str, overrides: list[str]) -> Any:  # noqa: ANN401 - one of the root types
    """Return the typed configuration of a command.

    Raises:
        InputError: unknown key, wrong type, unknown option or value out of range, in one line.

    """
    register()
    GlobalHydra.instance().clear()
    with initialize_config_module("conf", version_base="1.3"):
        try:
            usual, other = split_overrides(overrides)
            config = compose(command, overrides=usual)
            for key, value in other.items():
                OmegaConf.update(config, key, value)
        except (HydraException, OmegaConfBaseException) as error:
            raise InputError(_one_line(error, compose(command))) from error
    return to_typed(config)
