"""Runs the real server on the fake bundle: `python -m tests.faults.talkative_server JSON`.

JSON holds the settings of `ServeConfig`. Every logger writes everything, more than any setting allows.
"""

from __future__ import annotations

import json
import logging
import sys

from rich.console import Console

from conf.composition.compose import compose_command
from conf.errors import InputError
from serving.server import serve_model
from tests.faults.changing_bundle import ChangingBundle


def main() -> int:
    logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = json.loads(sys.argv[1])
    config = compose_command("serve", [f"{name}={value}" for name, value in settings.items()])
    try:
        serve_model(config, ChangingBundle, Console(), lambda version, _: ChangingBundle(version))
    except InputError as error:
        Console(stderr=True).print(f"shelfwise: {error}", soft_wrap=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
