"""The statistics library, imported when a report is made: it takes a second, and it is an extra."""

from __future__ import annotations

import importlib
from typing import Any

from conf.errors import InputError


def statsmodels(module: str) -> Any:  # noqa: ANN401 - a module
    """Return a module of statsmodels.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(f"statsmodels.{module}")
    except ModuleNotFoundError as error:
        raise InputError(
            "reports of experiments need statsmodels: pip install -c constraints.txt 'shelfwise[experiments]'"
        ) from error
