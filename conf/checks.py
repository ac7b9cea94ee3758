"""Range checks of settings; messages have the settings' full names."""

from __future__ import annotations

import re

from conf.errors import InputError


def require(condition: bool, message: str) -> None:
    """Raise an error unless a condition holds.

    Raises:
        InputError: the condition does not hold.
    """
    if not condition:
        raise InputError(message)


def at_least(least: int, config: object, section: str, *names: str) -> None:
    """Check that fields of a config are `least` or more; `section` is the prefix of their names."""
    for name in names:
        require(getattr(config, name) >= least, f"{section}{name} must be {least} or more")


def check_device(value: str) -> None:
    """Refuse a value of the key `device` that names no device.

    Raises:
        InputError: it is none of auto, cpu, cuda and cuda:N.
    """
    require(
        re.fullmatch(r"auto|cpu|cuda(:\d+)?", value) is not None,
        f"device must be auto, cpu, cuda or cuda:N, not '{value}'",
    )
