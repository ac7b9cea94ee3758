"""Overrides: formatted for a shell, and parsed where Hydra's grammar cannot."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml  # type: ignore[import-untyped]
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./*-]*(?: [A-Za-z0-9_./-]+)*")
_RESERVED = frozenset(("true", "false", "null", "nan", "inf", "yes", "no", "on", "off", "y", "n"))
VALUED_FLAGS = (
    "--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn",
)  # fmt: skip
"""Hydra's flags that take the next argument as their value."""
_SETTING = re.compile(r"(?s)([A-Za-z_][\w.]*)=(.*)")


def _word(value: object) -> str:
    if not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    if '"' not in value and "\\" not in value:  # single quotes are the shell's
        return f'"{value}"'
    if "'" not in value:
        return f"'{value}'"
    return '"' + value.replace('"', '\\"') + '"'


def written(value: object) -> str:
    """Format a value of an override: a number, a text, a list or a mapping."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_word(k)}: {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(written(v) for v in value) + "]"
    return _word(value)


def override(key: str, value: object) -> str:
    """Format an override for a shell, quoted if necessary.

    Args:
        key: e.g. `data.columns`.
        value: its value.
    """
    return shlex.quote(f"{key}={written(value)}")


def with_key(arguments: Sequence[str], key: str) -> list[str]:
    """Turn arguments without a key, as in `inspect FILE... rows=5`, into an override of a list.

    Args:
        arguments: of the command; paths may contain `=` if they exist.
        key: of the list.
    """
    values: list[str] = []
    others: list[str] = []
    for before, argument in zip(("", *arguments), arguments, strict=False):
        own = argument.startswith("-") or before in VALUED_FLAGS
        bare = not own and ("=" not in argument or Path(argument).exists())
        (values if bare else others).append(argument)
    return [*others, f"{key}={written(values)}"] if values else others


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], dict[str, object]]:
    """Separate the overrides that Hydra's grammar cannot parse, and parse them as YAML.

    The grammar has no letters but A to Z outside quotes, no `~` and no brackets in a path, and no quotes in
    the keys of a mapping, as in `data.items=Käufe[2024].csv` and `data.columns={items.größe: size}`.

    Returns:
        The overrides for Hydra, and key -> value of the others.
    """
    parser = OverridesParser.create()
    usual: list[str] = []
    other: dict[str, object] = {}
    for text in overrides:
        try:
            parser.parse_override(text)
        except HydraException:
            setting = _SETTING.fullmatch(text)
            if setting is not None:
                value = _yaml(setting.group(2))
                if value is not None:
                    other[setting.group(1)] = value
                    continue
        usual.append(text)
    return usual, other


def in_quotes(arguments: Sequence[str]) -> list[str]:
    """Quote texts that Hydra's grammar cannot parse.

    Hydra itself parses the arguments of sweeps and of its flags: `data.items=Käufe/i.csv` is passed as
    `data.items="Käufe/i.csv"`. Arguments that cannot be parsed in quotes either are unchanged.
    """
    parser = OverridesParser.create()

    def readable(text: str) -> bool:
        try:
            parser.parse_override(text)
        except HydraException:
            return False
        return True

    quoted = []
    for text in arguments:
        setting = _SETTING.fullmatch(text)
        if setting is not None and not readable(text) and isinstance(_yaml(setting.group(2)), str):
            value = setting.group(2).replace("\\", "\\\\").replace('"', '\\"')
            inside = f'{setting.group(1)}="{value}"'
            quoted.append(inside if readable(inside) else text)
        else:
            quoted.append(text)
    return quoted


def _yaml(text: str) -> object:
    """Parse a mapping, a list or a text; None for others."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        # A folder may be named [2024]; a mapping that does not close is an error.
        return text if re.match(r"\[[^\[\]]*\][^,\]]", text) else None
    return value if isinstance(value, dict | list) else text
