"""Errors of Hydra and OmegaConf for a wrong override, as one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from conf.errors import InputError, closest

RENAMED = {
    "text_encoder.devices": "is now devices, for the towers too: write devices=0 for every GPU",
    "index.gpu": "is gone: set device=cuda, device=cpu or device=auto",
}
"""Keys of former versions -> their replacement."""


def _matching_override(key: str, overrides: Sequence[str]) -> str | None:
    """Return the last override that sets a key, a part of it, or something that contains it."""
    for override in reversed(overrides):
        path = override.lstrip("+~").partition("=")[0]
        if path == key or path.startswith(f"{key}.") or key.startswith((f"{path}.", f"{path}[")):
            return override
    return None


def readable(error: HydraException | OmegaConfBaseException, overrides: Sequence[str] = ()) -> InputError:
    """Return the error that names the wrong override and the fix.

    Args:
        error: raised while composing a configuration or converting it.
        overrides: as typed by the user.
    """
    if isinstance(error, OverrideParseException):
        return InputError(
            f"cannot read the arguments ({error.override}); write key=value, and put a value that holds one "
            "of < > = , [ ] ( ) in quotes of its own: 'filter=\"price < 5\"'"
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.partition("/")
        options = [option for option in error.options if option != "schema"]
        near = closest(name, options)
        return InputError(f"no '{name}' for {group} (there are: {', '.join(options)}){near}")
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__ or error.__context__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        key, reason = cause.full_key, str(cause).splitlines()[0]
        if key in RENAMED:
            return InputError(f"config key '{key}' {RENAMED[key]}")
        override = _matching_override(key, overrides)
        if override is not None and isinstance(cause, ConfigAttributeError | ConfigKeyError):
            path = override.lstrip("+~").partition("=")[0]
            known = cause.parent_node if isinstance(cause.parent_node, DictConfig) else ()
            return InputError(f"unknown config key '{path}'{closest(str(cause.key), map(str, known))}")
        if override is not None or cause is error:
            return InputError(f"{override or key}: {reason}")
    return InputError(" ".join(str(error).split()))


def refuse_unknown_keys(config: DictConfig) -> None:
    """Refuse keys added by `+key=value` that the type of the configuration does not have.

    Raises:
        InputError: naming the key.
    """
    schema = OmegaConf.get_type(config)
    for key in config:
        if is_dataclass(schema) and key not in (known := [field.name for field in fields(schema)]):
            raise InputError(f"unknown config key '{config._get_full_key(key)}'{closest(str(key), known)}")
        child = config._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and is_dataclass(OmegaConf.get_type(child)):
            refuse_unknown_keys(child)
