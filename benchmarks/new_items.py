"""What becomes of new items in a shop, asked over a real socket.

    python -m benchmarks.new_items --storefront --run work/demo
    python -m benchmarks.new_items --storefront --run work/demo --code ../earlier --output work/before.json
    python -m benchmarks.new_items --storefront --run work/demo --before work/before.json

`--storefront` tries what a shop would try with ten new groceries, searches, intents and changes of items, on
a copy of a finished run's artifacts (The Complete Journey; other catalogues leave out what they cannot say).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from benchmarks.serving import running
from benchmarks.storefront import copy_of, opened
from benchmarks.storefront_table import cells, header, markdown, print_rows, read_result, trials, write_result
from conf.errors import InputError
from features.stages import write_atomically
from ranking.publish import ARTIFACTS

CONSOLE = Console()


@contextmanager
def served(artifacts: Path, log: Path, code: Path | None, settings: Sequence[str]) -> Iterator[str]:
    """Start a server on a store; give its address.

    Args:
        artifacts: the store; what the server learns is left in its state file.
        log: gets the server's standard error.
        code: another checkout whose server shall be asked; None is this one.
        settings: further settings of `shelfwise serve`.
    """
    command = [
        sys.executable, "-m", "shelfwise", "serve", f"artifacts={artifacts.resolve()}", "port=0",
        "admin=true", *settings,
    ]  # fmt: skip
    with running(command, log, code) as server:
        yield server.address


def storefront(asked: argparse.Namespace) -> None:
    """Try everything on a copy of the run's artifacts, or on a running server, and show the table."""
    store, folder = asked.run / ARTIFACTS, asked.run / "benchmarks" / "storefront"
    if not store.is_dir():
        raise InputError(
            f"{store}: nothing is published there; run `shelfwise run` or `shelfwise publish` first"
        )
    before = None if asked.before is None else read_result(asked.before)
    folder.mkdir(parents=True, exist_ok=True)
    if asked.address:
        with opened(asked.address, store) as shop:
            result = trials(shop, CONSOLE)
    else:
        copy = copy_of(store, folder / ARTIFACTS)
        with (
            served(copy, folder / "server.log", asked.code, asked.set) as address,
            opened(address, copy) as shop,
        ):
            result = trials(shop, CONSOLE)
    output = asked.output or folder / "storefront.json"
    write_result(output, result)
    names = header(before is not None)
    write_atomically(output.with_suffix(".md"), markdown(cells(result, before), names) + "\n")
    print_rows(CONSOLE, result, before)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="work directory of a finished run")
    parser.add_argument("--storefront", action="store_true", help="try what a shop would try")
    parser.add_argument("--address", default="", help="a running server of the run's artifacts, HOST:PORT")
    parser.add_argument("--code", type=Path, help="another checkout, whose server is measured instead")
    parser.add_argument("--set", nargs="*", default=[], help="settings of the server, key=value")
    parser.add_argument("--before", type=Path, help="result of another version, to be shown beside")
    parser.add_argument("--output", type=Path, help="of the .json and .md files")
    return parser.parse_args()


def main() -> int:
    """Do what the arguments say."""
    asked = _arguments()
    try:
        storefront(asked)
    except InputError as error:
        CONSOLE.print(f"[bold red]benchmarks.new_items:[/bold red] {error}", soft_wrap=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
