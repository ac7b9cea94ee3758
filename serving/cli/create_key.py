"""`shelfwise create-key`: an API key, printed once."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from conf.operating import CreateKeyConfig
from features.files.audit_log import record_command
from serving.transport import api_keys


def create_key(config: CreateKeyConfig, console: Console) -> None:
    """Add a key to the key file and print its secret.

    Raises:
        InputError: the name is taken, or a scope does not exist.

    """
    path = Path(config.keys)
    secret = api_keys.create_key(path, config.name, config.scopes, config.requests_per_second, config.burst)
    record_command(path.parent, "create-key", name=config.name, scopes=list(config.scopes), file=str(path))
    console.print(
        f"added '{config.name}' to {path}; the key is shown this once:", markup=False, soft_wrap=True
    )
    console.print(secret, markup=False, highlight=False, soft_wrap=True)
