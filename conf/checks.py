"""Range checks of settings, with the names by which users know them."""

from __future__ import annotations

from conf.errors import InputError


def require(condition: bool, message: str) -> None:
    """Refuse a setting.

    Raises:
        InputError: the condition does not hold; its text is the message.
    """
    if not condition:
        raise InputError(message)


def at_least(least: int, config: object, section: str, *names: str) -> None:
    """Check that fields of a config are `least` or more; `section` is where users find them."""
    for name in names:
        require(getattr(config, name) >= least, f"{section}{name} must be {least} or more")
