"""The command line: `shelfwise <command> [overrides]`."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pkgutil import resolve_name
from typing import Any, NoReturn

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads would compete with torch's
logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # logs the CPU builds it tries

import hydra  # noqa: E402
from omegaconf import DictConfig  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.markup import escape  # noqa: E402

from conf.commands import TABLE  # noqa: E402
from conf.composition.compose import compose_command, register, to_typed  # noqa: E402
from conf.composition.override_errors import readable  # noqa: E402
from conf.composition.overrides import VALUED_FLAGS, in_quotes, with_key  # noqa: E402
from conf.errors import GuardError, InputError  # noqa: E402
from conf.faiss_package import require_faiss  # noqa: E402

CONSOLE = Console()
ERRORS = Console(stderr=True)

USAGE = """usage: shelfwise <command> [key=value ...]

{commands}

`shelfwise <command> --cfg job` prints every key of a command with its value; `-m` sweeps over several values
(`shelfwise run -m seed=0,1,2` ends in mean and spread), `shelfwise -m run hydra/sweeper=optuna ...` searches
for the best ones.
""".format(commands="\n".join(f"  {name:<15}  {command.help}" for name, command in TABLE.items()))


def _call(function: str, config: Any) -> float | None:  # noqa: ANN401 - the command's root config
    """Import a command's function and call it; only scores are passed on, for Hydra's sweepers."""
    result = resolve_name(function)(config, CONSOLE)
    return result if isinstance(result, float) else None


COMMANDS: dict[str, Callable[[Any], float | None]] = {
    name: partial(_call, command.function) for name, command in TABLE.items()
}
"""Type of a command's function, given its configuration."""

POSITIONAL = {"inspect": "files", "compare": "systems"}
"""Commands that take arguments without a key -> the setting that they are."""


def execute(command: str, config: Any) -> float | None:  # noqa: ANN401
    """Run a command.

    Raises:
        InputError: wrong input.

    """
    if command == "serve":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to read again
    if TABLE[command].needs_faiss:
        require_faiss()
    if command == "serve":
        _begin_serving(config)
    threads = getattr(config, "threads", 0)
    if threads and command != "serve":  # which sets them in its worker thread
        import torch

        torch.set_num_threads(threads)
        if TABLE[command].needs_faiss:
            import faiss

            faiss.omp_set_num_threads(threads)
    if os.environ.get("WORLD_SIZE", "1") != "1" and hasattr(config, "devices"):
        from encoders.training.launch import run_command

        return run_command(lambda: COMMANDS[command](config), config.devices)
    return COMMANDS[command](config)


def _begin_serving(config: Any) -> None:  # noqa: ANN401
    """Watch workers until they end, where there are some; else start what the server needs first."""
    from serving.observability.logs import start_logging

    if config.workers > 1:
        from serving.workers import begin_worker, run_workers, worker_number

        begin_worker()
        if worker_number() is None:  # this process only starts and watches the workers
            start_logging(config.log_format, config.log_requests)
            sys.exit(run_workers(config, sys.argv, CONSOLE))
    start_logging(config.log_format, config.log_requests)  # the processes of models inherit standard error
    from serving.model.process.starter import STARTER

    STARTER.prepare()  # the model's libraries are imported while this process imports its own


def fail(error: InputError) -> NoReturn:
    """Print an input error and exit."""
    ERRORS.print(f"[bold red]shelfwise:[/bold red] {escape(str(error))}", soft_wrap=True)
    sys.exit(2)


def split_command(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Find the command; Hydra's flags may precede it, as in `shelfwise -m run ...`.

    Returns:
        The command, and its arguments with the flags first: Hydra parses overrides on one side of flags only.

    Raises:
        InputError: no command, or one that does not exist.

    """
    index = 0
    while index < len(arguments) and arguments[index].startswith("-"):
        index += 2 if arguments[index] in VALUED_FLAGS else 1
    if index >= len(arguments) or "=" in arguments[index]:
        raise InputError("which command? see shelfwise --help")
    command, after = arguments[index], index + 1
    if "-".join(arguments[index : index + 2]) in COMMANDS:  # `export events` is `export-events`
        command, after = "-".join(arguments[index : index + 2]), index + 2
    if command not in COMMANDS:
        from conf.errors import closest

        raise InputError(f"unknown command '{command}'{closest(command, COMMANDS)}; see shelfwise --help")
    flags: list[str] = []
    overrides: list[str] = []
    after_flag = False
    for argument in (*arguments[:index], *arguments[after:]):
        is_flag = argument.startswith("-")
        (flags if is_flag or after_flag or "=" not in argument and argument[:1] != "~" else overrides).append(
            argument
        )
        after_flag = is_flag and argument in VALUED_FLAGS
    return command, [*flags, *overrides]


def through_hydra(command: str, arguments: Sequence[str]) -> None:
    """Run a command with Hydra's own flags: sweeps, --cfg, --info and the rest.

    Raises:
        InputError: wrong input of a search for settings, or several runs under a launcher.

    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from tuning.seeds import SeedRuns

    register(command)
    several = bool({"-m", "--multirun"} & set(arguments))
    if several and os.environ.get("WORLD_SIZE", "1") != "1":
        from encoders.training.launch import launched

        if launched() > 1:
            raise InputError(
                f"-m does not work under a launcher; `shelfwise -m {command} devices=0 ...` without it "
                "trains on every GPU of this machine"
            )
    seeds = SeedRuns.of(command, arguments) if several else None
    if seeds is not None:
        arguments = [*arguments, *seeds.folders]
    sys.argv = [f"shelfwise {command}", *in_quotes(arguments)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # propagate errors; Hydra would print a shortened traceback instead

    @hydra.main(version_base="1.3", config_path="pkg://conf", config_name=command)
    def job(config: DictConfig) -> float | None:
        typed = to_typed(config)
        if seeds is not None:
            typed = seeds.placed(typed, HydraConfig.get().overrides.task)
        return execute(command, typed)

    try:
        job()
        if seeds is not None:
            seeds.summarise(CONSOLE)
    except (HydraException, OmegaConfBaseException) as error:
        raise readable(error, arguments) from error


def main() -> None:
    """Dispatch `shelfwise <command> ...`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # flush a redirected log line by line
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        CONSOLE.print(USAGE, markup=False, highlight=False, soft_wrap=True)
        sys.exit(0 if arguments else 2)
    try:
        command, rest = split_command(arguments)
        if command in POSITIONAL:
            rest = with_key(rest, POSITIONAL[command])
        if any(a.startswith("-") for a in rest):
            through_hydra(command, rest)
            return
        if any(a.startswith(("sweep=", "hydra/sweeper=")) for a in rest):
            raise InputError(f"a search for settings needs -m: shelfwise -m {command} ...")
        execute(command, compose_command(command, rest))
    except InputError as error:
        fail(error)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if not library or importlib.util.find_spec(library) is not None:
            raise
        fail(
            InputError(
                f"this installation lacks the library {library}, as that of a server does; "
                "install all with pip install 'shelfwise[cpu,explorer]', or use the image for training"
            )
        )
    except GuardError as error:
        ERRORS.print(f"[bold red]shelfwise:[/bold red] {escape(str(error))}", soft_wrap=True)
        sys.exit(3)


if __name__ == "__main__":
    main()
