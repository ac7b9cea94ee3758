"""The real server on the fake bundle; run it with STORE PORT DRAIN_SECONDS LOG_FORMAT [STATE]."""

from __future__ import annotations

import sys

from rich.console import Console

from conf.errors import InputError
from conf.serving import LogFormat, ServeConfig
from serving.server import serve_model
from tests.serving.fake_bundle import FakeBundle


def main() -> int:
    console = Console()
    port, drain = int(sys.argv[2]), float(sys.argv[3])
    state = sys.argv[5] if len(sys.argv) > 5 else None
    config = ServeConfig(
        artifacts=sys.argv[1],
        port=port,
        drain_seconds=drain,
        log_requests=True,
        log_format=LogFormat(sys.argv[4]),
        state=state,
    )
    try:
        serve_model(config, FakeBundle, console)
    except InputError as error:
        console.print(str(error), soft_wrap=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
